"""Hostile callers against a real server: malformed requests, events of the page, connections that never ask.

    python benchmarks/hostile_http.py [COUNT] [SEED]

Requests: mutations of valid ones (heads, multipart bodies, encodings, sizes, query values; see mutations.py), and
events of the page with values of every kind. Connections: 1,100 half-open ones, first in their heads and then in their
bodies, while 64 clients ask at once. At the end SIGTERM, while one half-open request is there. The status is 1 where
an answer was a 5xx, the log has a traceback, an answer did not come, a client was shut out, the log grew to 100 KB
under the half-open connections, or the end took more than 5 s.
"""

import collections
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from mutations import WORDS, mutation, part, pictures, status_of
from serve import memory, served

HALF_OPEN = 1100
CLIENTS = 64
LOG_BYTES = 100_000
END_SECONDS = 5
VALUES = (None, True, -1, 0, 1, 10**20, 1e300, 0.9, [], {}, ["a"], {"path": "/etc/passwd"}, {"url": "http://192.0.2.1"})
GRADIO = (
    "upload",
    "file=/etc/passwd",
    "info",
    "queue/status",
    "queue/data",
    "queue/data?session_hash=x",
    "heartbeat/!",
    "x",
)


def request(method: str, path: str, body: bytes, kind: str) -> bytes:
    """Return the bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def event(rng: random.Random) -> bytes:
    """Return the bytes of an event of the page with values that are mostly wrong, or of a question to gradio itself."""
    if rng.random() < 0.2:
        return request(
            rng.choice(("GET", "POST", "PUT")), f"/gradio_api/{rng.choice(GRADIO)}", b"{}", "application/json"
        )
    content = {
        "fn_index": rng.choice((*range(25), -1, 99, "0", None)),
        "session_hash": rng.choice(("a1", "b2", "c3", "../a", "", None, 7)),
        "data": [rng.choice((*VALUES[:8], *WORDS)) for _ in range(rng.randrange(7))],
        "event_data": rng.choice(
            (None, *VALUES, {"pick": rng.choice(VALUES)}, {"name": "a", "bytes": 9, "data": "AAAA"})
        ),
    }
    if rng.random() < 0.3:
        content[rng.choice((*content, "request", "trigger_id", "batched"))] = rng.choice(VALUES)
    body = json.dumps(content).encode()
    return request("POST", "/gradio_api/queue/join", body[: rng.choice((len(body), len(body), 9))], "application/json")


def bombard(port: int, count: int, seed: int) -> tuple[collections.Counter[str], list[str]]:
    """Send hostile requests; return the statuses, and a line for each answer that is wrong."""
    rng, statuses, bad = random.Random(seed), collections.Counter(), []
    files = pictures(rng)
    for number in range(count):
        sent, whole = (event(rng), True) if number % 3 == 0 else mutation(rng, files)
        status = status_of(port, sent, whole)
        statuses[status] += 1
        if status in ("500", "lost"):
            bad.append(f"request {number}: {status} {sent[:300]!r}")
    return statuses, bad


def crowd(port: int, half: bytes, valid: bytes) -> int:
    """Open half-open connections, ask with the clients beside them, and return how many of these were answered."""
    with ExitStack() as stack, ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(HALF_OPEN):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)).sendall(half)
        return sum(status == "200" for status in pool.map(lambda _: status_of(port, valid, True), range(CLIENTS)))


def main() -> None:
    """Run all of it against one server of the example classifier."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    image = pictures(random.Random(seed))[1]
    body = part("images", image, "a.jpg") + b"--b--\r\n"
    valid = request("POST", "/api/predict?views=one", body, "multipart/form-data; boundary=b")
    with tempfile.NamedTemporaryFile() as log, served(None, log=log) as (port, process):  # type: ignore[arg-type]
        path = Path(log.name)
        began = time.perf_counter()
        statuses, bad = bombard(port, count, seed)
        shown = ", ".join(f"{status}: {statuses[status]:,}" for status in sorted(statuses))
        print(
            f"{count:,} requests of seed {seed} in {time.perf_counter() - began:.0f} s; {shown}; memory"
            f" {memory(process):.0f} MB"
        )
        for where, half in (("head", valid[:40]), ("body", valid[: -len(body) + 20])):
            before = path.stat().st_size
            answered = crowd(port, half, valid)
            grown = path.stat().st_size - before
            print(
                f"{HALF_OPEN:,} connections half-open in the {where}: {answered} of {CLIENTS} clients answered, log"
                f" {grown:,} B"
            )
            if answered < CLIENTS or grown >= LOG_BYTES:
                bad.append(f"half-open in the {where}: {answered} clients, log {grown:,} B")
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(valid[:-20])
            began = time.perf_counter()
            os.kill(process, signal.SIGTERM)
            while (
                Path(f"/proc/{process}/stat").exists()
                and "Z" not in Path(f"/proc/{process}/stat").read_text().split()[2]
            ):
                time.sleep(0.05)
        seconds = time.perf_counter() - began
        print(f"it ended {seconds:.1f} s after SIGTERM")
        if seconds > END_SECONDS:
            bad.append(f"the end took {seconds:.1f} s")
        if tracebacks := path.read_bytes().count(b"Traceback"):
            bad.append(
                f"{tracebacks} tracebacks in the log; the last:"
                f" {path.read_bytes().rpartition(b'Traceback')[2][-2000:].decode()}"
            )
    print(f"wrong: {len(bad)}", *bad[:20], sep="\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
