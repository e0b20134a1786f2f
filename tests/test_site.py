"""The docs site builds without a warning, every link leads somewhere, and its pages ask nothing of another host."""

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from browsing import chromium, faults, in_browser, stays_within

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SETTINGS = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
LOADS = {"src", "srcset", "poster", "data", "action", "formaction"}
"""Attributes whose address a browser asks by itself, or sends a form to."""


def pages_of(navigation: Any) -> Iterator[str]:
    """Yield the files that a navigation names."""
    if isinstance(navigation, str):
        yield navigation
    for item in navigation.values() if isinstance(navigation, dict) else navigation:
        if not isinstance(navigation, str):
            yield from pages_of(item)


def test_every_page_of_the_docs_is_in_the_navigation_once() -> None:
    written = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
    assert sorted(pages_of(SETTINGS["nav"])) == written


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_every_link_of_a_page_beside_the_site_leads_to_a_file(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text("utf-8"))
    assert links
    for link in links:
        assert urlsplit(link).scheme or (ROOT / urlsplit(link).path).exists(), link


# ── the site as it is built ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Page(HTMLParser):
    """What a page links to, loads, and is linked by."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    paragraphs: list[str] = field(default_factory=list)
    _within: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        self.loads += [value for name, value in given.items() if name in LOADS]
        if tag == "a":
            self.links += [given[name] for name in ("href",) if name in given]
        elif "href" in given and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given["href"])
        if tag in ("p", "pre"):
            self._within = tag == "p"
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self._within = False

    def handle_data(self, data: str) -> None:
        if self._within:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, built from a copy of its sources."""
    pytest.importorskip("zensical", reason="the site is built by Zensical: pip install '.[docs]'")
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, root / "docs")
    shutil.copy(ROOT / "zensical.toml", root)
    (root / "src").symlink_to(ROOT / "src")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "Warning" not in built.stdout + built.stderr
    return root / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """Every page by its address below the site."""
    read = {}
    for file in sorted(site.rglob("*.html")):
        read[file.relative_to(site).as_posix()] = page = Page()
        page.feed(file.read_text("utf-8"))
    return read


def test_the_site_has_a_page_for_every_one_of_the_navigation(pages: dict[str, Page]) -> None:
    for name in pages_of(SETTINGS["nav"]):
        assert re.sub(r"(^|/)(index|README)\.md$|\.md$", r"\1/", name).strip("/") + "/index.html" in {
            f"/{page}" if page == "index.html" else page for page in pages
        }, name


def test_no_page_and_no_style_loads_anything_from_another_host(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert not [address for address in page.loads if urlsplit(address).netloc], name
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text("utf-8")), style.name


def test_every_link_within_the_site_leads_to_a_file_and_a_place_of_it(site: Path, pages: dict[str, Page]) -> None:
    dead = []
    for name, page in pages.items():
        if name == "404.html":
            continue  # its links start at the root of a host
        for link in page.links:
            parts = urlsplit(urljoin(f"http://site/{name}", link))
            if parts.netloc != "site":
                continue
            target = unquote(parts.path).lstrip("/")
            target += "index.html" if not target or target.endswith("/") else ""
            place = unquote(parts.fragment)
            if not (site / target).is_file() or (place and place not in pages[target].names):
                dead.append(f"{name}: {link}")
    assert not dead


def test_no_list_was_taken_for_the_end_of_a_paragraph(pages: dict[str, Page]) -> None:
    """As happens to one without an empty line before it."""
    for name, page in pages.items():
        assert not [text for text in page.paragraphs if re.search(r"^(- |1\. |\|)", text, re.M)], name


@in_browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light"), (1280, "dark")])
def test_a_browser_asks_nothing_of_another_host_and_axe_nothing_of_a_page(site: Path, width: int, scheme: str) -> None:
    handler = functools.partial(QuietHandler, directory=str(site))
    asked: list[str] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, chromium() as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        for path in ("", "guides/train/", "reference/api/", "techniques/"):
            page.goto(address + path, wait_until="networkidle")
            assert stays_within(page, width)
            assert faults(page) == [], path
        page.keyboard.press("/")
        page.keyboard.type("calibration")
        page.wait_for_function("/results\\/calibration/.test(document.documentElement.outerHTML)")
        server.shutdown()
    assert len(asked) > 10
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A server of files that logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass
