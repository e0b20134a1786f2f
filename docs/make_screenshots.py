"""Draw the pictures of the README: a report and the page of the service, of a run on the embedded photographs.

    python docs/make_screenshots.py        # make screenshots; needs Debian's chromium and Playwright

The pictures go to docs/images, each with as few colors as keep it below 300 KB.
"""

import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from importlib.resources import files
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import sightline

IMAGES = Path(__file__).parent / "images"
LARGEST = 300_000  # bytes
SIZE = {"width": 1000, "height": 1150}
SHOWN = "Satsumas"


def main() -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("no chromium was found; run: apt install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run = sightline.train("groceries", run=Path(folder) / "groceries")
        photo = write_photo(Path(folder))
        page = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(viewport=SIZE)
        page.goto((Path(run) / "report.html").as_uri())
        save(page, "report.png")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = subprocess.Popen([sys.executable, "-m", "sightline", "serve", run, "--port", str(port)])
        try:
            ask(page, f"http://127.0.0.1:{port}", photo)
            save(page, "page.png")
        finally:
            server.terminate()
            server.wait(30)


def write_photo(folder: Path) -> Path:
    """Write one of the embedded photographs, and return its path."""
    with zipfile.ZipFile(str(files("sightline") / "resources/box/groceries.zip")) as packed:
        name = sorted(one for one in packed.namelist() if one.startswith(f"{SHOWN}/"))[3]
        path = folder / Path(name).name
        path.write_bytes(packed.read(name))
    return path


def ask(page: Page, address: str, photo: Path) -> None:
    """Open the page of a service as soon as it is there, and show it a photograph."""
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{address}/api/health", timeout=5).close()
            break
        except urllib.error.URLError:
            time.sleep(0.1)
    page.goto(address)
    page.wait_for_selector(".sl-drop")
    page.set_input_files("#drop input", photo)
    page.wait_for_selector("#explanation .heat", timeout=60_000)
    page.wait_for_timeout(500)


def save(page: Page, name: str) -> None:
    """Save what the page shows."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    IMAGES.mkdir(exist_ok=True)
    for colors in (256, 128, 64):
        image.quantize(colors, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)
        if (IMAGES / name).stat().st_size <= LARGEST:
            return
    sys.exit(f"{name} is larger than {LARGEST:,} bytes with 64 colors; make the window smaller.")


if __name__ == "__main__":
    main()
