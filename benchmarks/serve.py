"""The service of a finished run under load from a second process: requests a second, latencies, answers, memory.

Starts ``sightline serve`` on 127.0.0.1 and drives it with 1, 8 and 64 callers, each of which keeps its connection and asks
about one JPEG file of 32 px at a time; then with 64 for some minutes; other views than those of the run with 8. Every
answer is compared with that of ``predict`` for the same file. It stops by itself.

    python benchmarks/serve.py runs/... ../shared/data/cifar10-jpeg.tar.xz 10
"""

import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

COUNT = 512  # different files
CALLERS = (1, 8, 64)
SECONDS = 20  # for each number of callers
WARM = 2  # seconds that are not counted
CLOSE = 1e-5  # of two probabilities that are the same
SERVE = [sys.executable, "-m", "sightline", "serve"]
MARK = "mark: at least 150 requests/s at 8 callers, 99th percentile at most 150 ms"


# ── the callers: a process of their own ──────────────────────────────────────────────────────────────────────────────


def request_of(port: int, name: str, data: bytes, query: str) -> bytes:
    """The bytes of a request about one image."""
    part = f'--b\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode()
    body = part + data + b"\r\n--b--\r\n"
    head = f"POST /api/predict{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    """Send a request, and read the status and the body of its answer."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(length)


async def call(port: int, requests: list[bytes], expected: list[Any], first: int, end: float, found: dict) -> None:
    """One caller: asks about one file after the other, on one connection, until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    index = first
    while (start := time.perf_counter()) < end:
        row = index % len(requests)
        index += 1
        try:
            status, body = await ask(reader, writer, requests[row])
        except (OSError, asyncio.IncompleteReadError) as error:
            found["errors"].append(repr(error))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        found["done"].append((start, time.perf_counter()))
        if status != 200:
            found["errors"].append(body.decode())
            continue
        answer = json.loads(body)["images"][0]
        label, probability, name = expected[row]
        found["differences"].append(abs(answer["probability"] - probability))
        if answer["class"] != label or answer["file"] != name:
            found["errors"].append(f"{name}: {answer['class']}; predict says {label}")
    writer.close()


async def drive(port: int, files: Path, callers: int, seconds: float, query: str) -> dict[str, Any]:
    """Ask with so many callers at a time for so many seconds, after a few that are not counted."""
    expected = json.loads((files / f"expected{query.replace('?views=', '-')}.json").read_text())
    requests = [request_of(port, name, (files / name).read_bytes(), query) for _, _, name in expected]
    found: dict[str, list] = {"done": [], "errors": [], "differences": []}
    begin = time.perf_counter() + WARM
    first = [index * len(requests) // callers for index in range(callers)]
    await asyncio.gather(*(call(port, requests, expected, row, begin + seconds, found) for row in first))
    taken = sorted(end - start for start, end in found["done"] if start >= begin)
    last = max(end for _, end in found["done"])
    return {
        "callers": callers,
        "requests": len(taken),
        "rate": sum(end >= begin for _, end in found["done"]) / (last - begin),
        "median": statistics.median(taken),
        "p99": taken[int(0.99 * len(taken))],
        "errors": len(found["errors"]),
        "first_error": found["errors"][:1],
        "difference": max(found["differences"], default=float("nan")),
    }


# ── the server, and what is measured of it ───────────────────────────────────────────────────────────────────────────


@contextmanager
def served(run: str | None, *settings: str, log: IO[bytes] | None = None) -> Iterator[tuple[int, int]]:
    """Run a server of its own, of the example classifier where no run is named: (port, process id)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*SERVE, *([run] if run else []), "--port", str(port), *settings]
    with nullcontext(log) if log else tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(600):
                if server.poll() is not None:
                    break
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5).close()
                    break
                except urllib.error.URLError:
                    time.sleep(0.1)
            yield port, server.pid
            if server.poll() is not None:
                log.seek(0)
                sys.exit(f"the server ended: {log.read()[-2000:].decode(errors='replace')}")
        finally:
            server.terminate()
            server.wait(30)


def memory(process: int) -> float:
    """Resident memory, in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def measure(port: int, files: Path, callers: int, seconds: float, query: str = "") -> dict[str, Any]:
    """Drive the server from a second process."""
    command = [sys.executable, __file__, "drive", str(port), str(files), str(callers), str(seconds), query]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(
        f"{callers:3} callers{query and ', ' + query[1:]}: {found['rate']:6.1f} requests/s, median {1000 * found['median']:.0f} ms,"
        f" 99th percentile {1000 * found['p99']:.0f} ms, n = {found['requests']:,}, errors {found['errors']}"
        f" {found['first_error'] or ''}, largest difference to predict {found['difference']:.1e}"
        f"{'' if found['difference'] <= CLOSE else '  (TOO LARGE)'}",
        flush=True,
    )
    return found


def other_views(run: str) -> list[str]:
    """Views that a run is calibrated for, besides those that it averages by itself."""
    import sightline

    classifier = sightline.load(run)
    return [views for views in classifier.temperatures if views not in (classifier.views, "flip")]


def prepare(run: str, archive: str, files: Path) -> None:
    """Unpack test images, and write down what ``predict`` says of them."""
    import sightline

    with tarfile.open(archive) as packed:
        for index, member in enumerate(m for m in packed if m.isfile() and m.name.startswith("test/")):
            if index % (10_000 // COUNT) == 0:
                content = packed.extractfile(member)
                assert content is not None
                (files / f"{index:05d}.jpg").write_bytes(content.read())
    images = sorted(files.glob("*.jpg"))
    for views in (None, *other_views(run)):
        found = sightline.predict(run, images, views=views)  # type: ignore[arg-type]
        assert len(found.predictions) == len(images)
        rows = zip(found.files, found.predictions, strict=True)
        answers = [(answer.label, answer.probability, Path(name).name) for name, answer in rows]
        (files / f"expected{'-' + views if views else ''}.json").write_text(json.dumps(answers))


def main() -> None:
    run, archive, minutes = sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 10
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        prepare(run, archive, files)
        with served(run) as (port, process):
            print(
                f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {MARK}"
            )
            for callers in CALLERS:
                measure(port, files, callers, SECONDS)
            for views in other_views(run):
                measure(port, files, 8, SECONDS, f"?views={views}")
            print(f"memory {memory(process):.0f} MB; {minutes:g} minutes with {CALLERS[-1]} callers follow")
            lost = 0
            for minute in range(1, round(minutes) + 1):
                lost += measure(port, files, CALLERS[-1], 60 - WARM)["errors"]
                print(f"minute {minute}: memory {memory(process):.0f} MB, lost {lost}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "drive":
        _, _, given_port, given_files, given_callers, given_seconds, given_query = sys.argv
        driven = drive(int(given_port), Path(given_files), int(given_callers), float(given_seconds), given_query)
        print(json.dumps(asyncio.run(driven)))
    else:
        main()
