"""Files that others publish: whole, with the right checksum, or not at all. The server is one of ours."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from sightline.data.sources import downloads
from sightline.data.sources.downloads import PublishedFile, fetch
from sightline.errors import DataError, StorageError

CONTENT = bytes(range(256)) * 40  # 10,240 bytes


class _Answers(BaseHTTPRequestHandler):
    """Serves ``server.contents``; breaks off after ``server.breaks_after`` bytes; goes on only if ``server.ranges``."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(self.headers.get("Range"))
        data = server.contents.get(self.path.lstrip("/"))
        if data is None:
            self.send_error(404)
            return
        begun = self.headers.get("Range")
        start = int(begun.removeprefix("bytes=").rstrip("-")) if begun and server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:][: server.breaks_after])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    """A web server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as answering:
        answering.contents, answering.asked = {"a.bin": CONTENT}, []
        answering.ranges, answering.breaks_after = True, None
        thread = threading.Thread(target=answering.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield answering
        answering.shutdown()
        thread.join()


def url(server: Any, name: str = "a.bin") -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def published(*urls: str, content: bytes = CONTENT) -> PublishedFile:
    return PublishedFile("a.bin", len(content), hashlib.sha256(content).hexdigest(), urls)


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/a.bin"


def test_a_file_is_downloaded_once(server, tmp_path):
    for _ in range(2):
        fetch((published(url(server)),), tmp_path / "set")
        assert (tmp_path / "set" / "a.bin").read_bytes() == CONTENT
    assert server.asked == [None]
    assert {path.name for path in (tmp_path / "set").iterdir()} <= {"a.bin", ".lock"}


def test_progress_is_told_in_megabytes(server, tmp_path, monkeypatch):
    server.contents["a.bin"] = CONTENT * 400  # 4.1 MB
    seen = []
    fetch((published(url(server), content=CONTENT * 400),), tmp_path, lambda *pair: seen.append(pair))
    assert seen[0] == (0, 4)
    assert seen[-1] == (4, 4)
    assert seen == sorted(seen)


def test_a_broken_download_is_not_taken_for_whole_and_the_next_start_goes_on_where_it_stopped(server, tmp_path):
    server.breaks_after = 1000
    with pytest.raises(DataError, match=r"broke off at 1,000 of 10,240 bytes, which are kept\); start again"):
        fetch((published(url(server)),), tmp_path)
    assert not (tmp_path / "a.bin").exists()
    server.breaks_after = None
    fetch((published(url(server)),), tmp_path)
    assert server.asked == [None, "bytes=1000-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_where_the_server_cannot_go_on_the_download_starts_again(server, tmp_path):
    (tmp_path / "a.bin.partial").write_bytes(CONTENT[:1000])
    server.ranges = False
    fetch((published(url(server)),), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_kill_between_the_last_byte_and_the_new_name_costs_no_second_download(server, tmp_path):
    (tmp_path / "a.bin.partial").write_bytes(CONTENT)
    fetch((published(url(server)),), tmp_path)
    assert server.asked == []
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_another_file_of_the_same_length_is_refused_and_not_kept(server, tmp_path):
    server.contents["a.bin"] = CONTENT[::-1]
    with pytest.raises(DataError, match=r"sent another file: its SHA-256 is \w{16}\.\.\., wanted \w{16}\.\.\.\)"):
        fetch((published(url(server)),), tmp_path)
    assert not list(tmp_path.glob("a.bin*"))


def test_a_page_in_place_of_the_file_is_refused_before_anything_is_written(server, tmp_path):
    server.contents["a.bin"] = b"<html>Please sign in to this network</html>"
    with pytest.raises(DataError, match="offers 43 bytes instead of 10,240"):
        fetch((published(url(server)),), tmp_path)
    assert not list(tmp_path.glob("a.bin*"))


def test_the_second_address_is_asked_when_the_first_has_nothing(server, tmp_path):
    fetch((published(url(server, "gone.bin"), closed_port(), url(server)),), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_without_a_network_one_sentence_names_the_file_the_reason_and_the_folder_for_it(tmp_path):
    start = time.perf_counter()
    with pytest.raises(DataError) as refused:
        fetch((published(closed_port()),), tmp_path / "mnist")
    assert time.perf_counter() - start < 2
    assert str(refused.value).startswith("mnist needs a.bin (0.0 MB), which could not be downloaded (127.0.0.1:"), (
        refused.value
    )
    assert (
        f"Connection refused); start again with a connection, or put the file a.bin into {tmp_path / 'mnist'} by"
        in str(refused.value)
    )


def test_a_server_that_never_answers_is_given_up_after_some_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "CONNECT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DataError, match=r"no answer in 0 s"):
            fetch((published(f"http://127.0.0.1:{silent.getsockname()[1]}/a.bin"),), tmp_path)


def test_a_host_that_never_answers_is_given_up_within_its_time(monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    ended = threading.Event()

    def silent(*_: object, **__: object) -> None:
        ended.wait(30)
        raise TimeoutError

    monkeypatch.setattr(downloads.socket, "create_connection", silent)
    start = time.perf_counter()
    assert not downloads.reachable("https://127.0.0.1", seconds=0.1)
    assert time.perf_counter() - start < 1
    ended.set()


def test_a_file_put_there_by_hand_is_taken_if_its_checksum_is_right(tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    fetch((published(closed_port()),), tmp_path)
    (tmp_path / "a.bin").write_bytes(CONTENT[:5000])
    with pytest.raises(
        DataError, match=r"a\.bin is not the published file: its SHA-256 is .*; delete it and start again"
    ):
        fetch((published(closed_port()),), tmp_path)
    assert (tmp_path / "a.bin").stat().st_size == 5000  # another's file is never deleted


def test_a_disk_without_room_is_refused_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match=r"the download of .* needs 0\.00 GB .* free space or set SIGHTLINE_CACHE"):
        fetch((published(url(server)),), tmp_path)
    assert server.asked == []


def test_two_processes_at_once_download_once(server, tmp_path):
    both = [threading.Thread(target=fetch, args=((published(url(server)),), tmp_path)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert server.asked == [None]
