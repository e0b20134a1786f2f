"""The format of a file, by its first bytes: its name does not count. Nothing here loads Pillow.

``READ`` is the one list of formats that are decoded anywhere, for a training as for a stranger's upload. It holds what
image sets are made of. Pillow knows many more; one of them starts another program (EPS, Ghostscript), and the others
(BLP, DDS, SPIDER, ...) would only widen what a stranger can attack.
"""

import struct

__all__ = ["HEAD", "READ", "WANTED", "format_of", "name_of_unread"]

HEAD = 64  # bytes of a file, from its beginning, that tell its format
READ = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""Pillow's names; HEIF needs the extra ``heic``."""
WANTED = "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, JPEG 2000, AVIF or HEIC"
"""The same for a sentence."""

_HEIF = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"}
_AVIF = {b"avif", b"avis"}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # sizes of the header behind the first 14 bytes
_BEGINNINGS: dict[str, bytes | tuple[bytes, ...]] = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0", b"II\0*"),
    "JPEG2000": (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"),
}
_UNREAD: dict[str, bytes | tuple[bytes, ...]] = {
    "PostScript": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "PDF": b"%PDF",
    "Photoshop": b"8BPS",
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "ICO": b"\0\0\1\0",
    "DDS": b"DDS ",
    "BLP": b"BLP",
    "FITS": b"SIMPLE  =",
    "HDF5": b"\x89HDF",
    "WMF": b"\xd7\xcd\xc6\x9a",
    "TGA": b"\0\0\2\0\0",
    "PCX": b"\x0a\x05\1\x08",
    "a Git LFS pointer": b"version https://git-lfs",
    "SVG": b"<svg",
}


def format_of(head: bytes) -> str:
    """Name the format of an image file.

    Args:
        head: its first ``HEAD`` bytes, or all of it.
    Returns:
        One of ``READ``; empty where it is none of them.
    """
    for name, beginnings in _BEGINNINGS.items():
        if head.startswith(beginnings):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM") and len(head) >= 18 and struct.unpack_from("<I", head, 14)[0] in _BMP_HEADERS:
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456f" and head[2:3].isspace() and _numbers_follow(head[3:]):
        return "PPM"
    return _format_of_box(head) if head[4:8] == b"ftyp" else ""


def _numbers_follow(text: bytes) -> bool:
    rest = text.lstrip()
    return not rest or rest[:1].isdigit() or rest[:1] == b"#"


def _format_of_box(head: bytes) -> str:
    """Tell AVIF from HEIF by the brands of an ISO file; empty for a film."""
    size = min(struct.unpack_from(">I", head)[0], len(head))
    brands = [head[8:12], *(head[place : place + 4] for place in range(16, size - 3, 4))]
    if brands[0] in _AVIF:
        return "AVIF"
    if brands[0] in _HEIF:
        return "HEIF"
    if brands[0] in (b"mif1", b"msf1", b"miaf"):  # any coding: the others tell
        return "AVIF" if _AVIF & set(brands) else "HEIF"
    return ""


def name_of_unread(head: bytes) -> str:
    """Name a format that is not read, for the sentence that says so; empty where it is unknown."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:9].lower() == b"<!doctype" or text[:5].lower() == b"<html":
        return "HTML"
    return next(
        (name for name, beginnings in _UNREAD.items() if head.startswith(beginnings) or text.startswith(beginnings)), ""
    )
