"""`sightline serve`: where it listens, what it says first, and what is left when it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from conftest import Finished
from sightline.cli.main import main
from sightline.config.serving import ServeConfig
from sightline.errors import ConfigError

pytest.importorskip("gradio")


def test_a_port_that_is_taken_is_refused_before_anything_is_loaded(finished: Finished, capsys) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["serve", str(finished.run), "--port", str(port)]) == 2
    assert f"--port {port} is in use; name another --port, or 0 for a free one." in capsys.readouterr().err


def test_an_address_of_another_machine_is_refused(finished: Finished, capsys) -> None:
    assert main(["serve", str(finished.run), "--host", "203.0.113.1", "--port", "0"]) == 2
    assert "--host 203.0.113.1 --port 0 cannot be listened at" in capsys.readouterr().err


def test_settings_are_checked_at_birth() -> None:
    with pytest.raises(ConfigError, match="--max-images is 0; it must be at least 1"):
        ServeConfig(max_images=0)


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_it_says_where_it_is_answers_who_knows_the_token_and_leaves_nothing(finished: Finished, tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "SIGHTLINE_CACHE": str(finished.cache)}
    command = [sys.executable, "-m", "sightline", "serve", str(finished.run), "--port", "0", "--token", "open sesame"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline().startswith(f"{finished.run}: 3 classes, accuracy ")
            address = server.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            assert address.endswith("/?token=open%20sesame")
            base = address.partition("?")[0]
            assert json.loads(get(f"{base}api/health")[1])["status"] == "ok"
            assert get(f"{base}api/model")[0] == 401
            assert get(f"{base}api/model", Authorization="Bearer open sesame")[0] == 200
            assert get(base)[0] == 401
            status, page = get(address)  # which sets a cookie, and leads to a page that asks for it
            assert status == 401
            assert b"token" in page
        finally:
            server.send_signal(signal.SIGTERM)
            _, log = server.communicate(timeout=60)
    assert server.returncode == 128 + signal.SIGTERM
    assert "sesame" not in log
    assert "GET /api/model 200" in log
    assert "Traceback" not in log
    assert list(tmp_path.iterdir()) == []


def test_answers_do_not_wait_for_acknowledgements() -> None:
    from sightline_runtime.serving.listening import listening

    with listening(ServeConfig(port=0)) as listener:
        listener.listen()
        assert listener.proto == socket.IPPROTO_TCP, "or asyncio leaves Nagle's algorithm on, 40 ms an answer"
