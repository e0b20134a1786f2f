"""Mutations of valid requests against a real server: no 5xx, memory flat, and the server answers on.

Each is a request about one to three images (JPEG, PNG, GIF, TIFF, BMP, WebP) with fields in the form or the query, in which one to
four things are wrong: bytes of the head, the boundary, the names, the fields, the images, or of everything; a method or a path of
its own; a body that is too short, too long, or ends in the middle. The same seed makes the same requests.

    python benchmarks/mutations.py runs/... 10000 42
"""

import collections
import io
import random
import socket
import sys
import time

from PIL import Image

from serve import memory, served

SECONDS = 1.0  # that an answer is waited for where the body is whole; bodies that are cut are not waited for
METHODS = ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "POSTS", "post", "ö", "")
PATHS = (
    "/",
    "/api",
    "/api/",
    "/api/model",
    "/api/health",
    "/openapi.json",
    "/api/../api/predict",
    "/%2e%2e/etc/passwd",
    "//",
    "*",
)
PATHS += ("http://127.0.0.1/api/predict", "/api/predict/", "/api/predict%00", "/api/predict;x", "/" + "a" * 5000)
WORDS = (
    "",
    "0",
    "-1",
    "1e9",
    "NaN",
    "9" * 300,
    "one",
    "flip",
    "six",
    "grad_cam",
    "saliency",
    "all",
    "cat",
    "groups.0",
    "../../x",
)
WORDS += ("\x00", "ü", "𝔘", "\u202e", "'\";--", "<b>", "%00", "{}", "[]", "null", "true", "0.9", "0.95", "x" * 5000)
NAMES = (
    "top",
    "views",
    "coverage",
    "explain",
    "layer",
    "target",
    "images",
    "image",
    "",
    "ü",
    "top[]",
    "__proto__",
    "x" * 300,
)
FILES = (
    "a.jpg",
    "../../a.jpg",
    "C:\\a.jpg",
    "",
    "\x1b[31m",
    "ü.png",
    "\u202egpj.exe",
    "a" * 3000,
    '"',
    "\r\nX: y",
    "%0d%0a",
    "\x00",
)
KINDS = ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP")


def pictures(rng: random.Random) -> list[bytes]:
    """Valid image files of every kind."""
    found = []
    for kind in KINDS:
        for side in (8, 32, 90):
            file = io.BytesIO()
            Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side)).save(file, kind)
            found.append(file.getvalue())
    return found


def spoilt(rng: random.Random, data: bytes) -> bytes:
    """Bytes with some of them changed, cut out, repeated or put in."""
    found = bytearray(data or b"x")
    for _ in range(rng.randint(1, 4)):
        place, length = rng.randrange(len(found)), rng.choice((1, 2, 4, 40, 400))
        match rng.randrange(5):
            case 0:
                found[place] = rng.randrange(256)
            case 1 if len(found) > length + 1:
                del found[place : place + length]
            case 2:
                found[place:place] = found[place : place + length]
            case 3:
                found[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"))
            case _:
                found[place:place] = rng.randbytes(length)
    return bytes(found) or b"x"


def part(name: str, data: bytes, file: str | None = None) -> bytes:
    shown = "" if file is None else f'; filename="{file}"'
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'.encode() + data + b"\r\n"


def mutation(rng: random.Random, files: list[bytes]) -> tuple[bytes, bool]:
    """The bytes of a request, and whether its body is whole, so that an answer must come."""
    wrong = {rng.randrange(12) for _ in range(rng.randint(1, 4))}
    images = [rng.choice(files) for _ in range(rng.randint(1, 3))]
    if 0 in wrong:
        images[0] = spoilt(rng, images[0])
    if 1 in wrong:
        images[-1] = rng.choice((b"", b"text", images[-1][: len(images[-1]) // 2], rng.randbytes(500)))
    parts = [part("images", image, rng.choice(FILES) if 2 in wrong else f"{n}.jpg") for n, image in enumerate(images)]
    query = ""
    if 3 in wrong:
        parts.append(part(rng.choice(NAMES), rng.choice(WORDS).encode(), rng.choice((None, None, None, "a.txt"))))
    if 4 in wrong:
        query = "?" + rng.choice(NAMES[:6]) + "=" + "".join(f"%{byte:02x}" for byte in rng.choice(WORDS).encode()[:900])
    if 5 in wrong:
        parts *= rng.choice((2, 50))
    rng.shuffle(parts)
    body = b"".join(parts) + rng.choice((b"--b--\r\n", b"--b--", b"", b"--b\r\n") if 6 in wrong else (b"--b--\r\n",))
    if 7 in wrong:
        body = spoilt(rng, body)
    method = rng.choice(METHODS) if 8 in wrong and rng.random() < 0.5 else "POST"
    path = rng.choice(PATHS) if 8 in wrong and method == "POST" else "/api/predict"
    kind = "multipart/form-data; boundary=b"
    if 9 in wrong:
        charset = rng.choice(("idna", "utf-7", "utf-16", "rot13", "unicode_escape", "x" * 99))
        kind = rng.choice(("", "text/plain", "multipart/form-data", 'multipart/form-data; boundary="', f"{kind}b"))
        kind = rng.choice(
            (kind, f"multipart/form-data; boundary=b; charset={charset}", "multipart/form-data; boundary=" + "b" * 90)
        )
    length, cut = len(body), 10 in wrong and rng.random() < 0.5
    if cut:
        length += rng.choice((1, 1000, 10**7, 10**12, 10**30))
    head = f"{method} {path}{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
    if 10 in wrong and not cut:
        strange = (
            "X-Request-Id: \x7f",
            "Expect: 100-continue",
            "Origin: null",
            "Host: a",
            "Cookie: a=b; =;",
            "Transfer-Encoding: x",
        )
        head += rng.choice((*strange, "Authorization: Bearer", f"X: {'x' * 70_000}", "Content-Length: 3")) + "\r\n"
    data = head.encode() + b"\r\n"
    if 11 in wrong and rng.random() < 0.5:
        return spoilt(rng, data) + body, False
    return data + body, not cut


def status_of(port: int, sent: bytes, whole: bool) -> str:
    """The status of the answer; ``none`` where the server closed or waits for more."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), 60 if whole else SECONDS / 10) as connection:
        try:
            connection.sendall(sent)
            while b"\r\n" not in found and (data := connection.recv(65536)):
                found += data
                if found.startswith(b"HTTP/1.1 100") and b"\r\n\r\n" in found:
                    found = found.partition(b"\r\n\r\n")[2]
        except (TimeoutError, ConnectionError):
            pass
    return found[9:12].decode() or ("lost" if whole else "none")


def main() -> None:
    run, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 42
    rng = random.Random(seed)
    files = pictures(rng)
    valid = b"".join(part("images", image, "a.jpg") for image in files) + b"--b--\r\n"
    valid = f"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(valid)}\r\n".encode() + (
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + valid
    )
    statuses: collections.Counter[str] = collections.Counter()
    bad = []
    with served(run) as (port, process):
        assert status_of(port, valid, True) == "200"
        begun = time.perf_counter()
        for number in range(1, count + 1):
            sent, whole = mutation(rng, files)
            status = status_of(port, sent, whole)
            statuses[status] += 1
            if status.startswith("5") or status == "lost":
                bad.append((number, status, sent[:300]))
            if number % max(1, count // 10) == 0 or number == min(500, count):
                print(
                    f"{number:6,} mutations, {time.perf_counter() - begun:.0f} s: memory {memory(process):.0f} MB",
                    flush=True,
                )
        answers = status_of(port, valid, True)
    shown = ", ".join(f"{status}: {statuses[status]:,}" for status in sorted(statuses))
    print(f"n = {count:,}, seed {seed}; {shown}; the server answers on: {answers == '200'}; 5xx or lost: {len(bad)}")
    for item in bad[:10]:
        print(*item)
    sys.exit(bool(bad) or answers != "200")


if __name__ == "__main__":
    main()
