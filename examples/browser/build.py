"""Put a classifier into a folder that any web server can serve: the page, the ONNX file, and onnxruntime-web.

    sightline export runs/first --out model.onnx
    python examples/browser/build.py model.onnx site
    python -m http.server --directory site --bind 127.0.0.1

onnxruntime-web comes from npm's registry, and is checked against its hash; the page itself asks no other host for
anything. The page resizes images as sightline does, to the bit; the browser's decoder may differ, by up to 3 levels.
"""

import base64
import hashlib
import io
import shutil
import sys
import tarfile
import urllib.request
from pathlib import Path

import msgspec

import sightline_runtime

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
NEEDED = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
PAGE = ("index.html", "classify.js", "decode.js", "resize.js")


def main(model: Path, site: Path) -> None:
    """Write the folder, and print how it is served."""
    metadata = sightline_runtime.load(model).metadata  # refuses what is no file of sightline
    site.mkdir(parents=True, exist_ok=True)
    for name in PAGE:
        shutil.copyfile(Path(__file__).with_name(name), site / name)
    shutil.copyfile(model, site / "model.onnx")
    (site / "model.json").write_bytes(msgspec.json.encode(metadata))
    if not all((site / name).exists() for name in NEEDED):
        fetch_onnxruntime(site)
    print(f"python -m http.server --directory {site} --bind 127.0.0.1")


def fetch_onnxruntime(site: Path) -> None:
    """Fetch onnxruntime-web, and put the files that the page needs into a folder."""
    try:
        with urllib.request.urlopen(URL, timeout=60) as answer:
            packed = answer.read()
    except OSError as error:
        sys.exit(f"{URL} could not be fetched ({error}); put {' and '.join(NEEDED)} of it into {site} by hand.")
    if base64.b64encode(hashlib.sha512(packed).digest()).decode() != SHA512:
        sys.exit(f"{URL} is not what was published as {VERSION}: its hash is another; nothing of it was written.")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for name in NEEDED:
            file = archive.extractfile(f"package/dist/{name}")
            assert file is not None  # it is in the archive that has this hash
            (site / name).write_bytes(file.read())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except sightline_runtime.SightlineError as error:
        sys.exit(str(error))
