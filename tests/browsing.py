"""A browser for the tests of pages, and what axe, a keyboard and a narrow window find on them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = [
    "BROWSER",
    "SCHEMES",
    "WIDTHS",
    "chromium",
    "faults",
    "focused_unseen",
    "in_browser",
    "look_over",
    "stays_within",
]

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium to open a page with: apt install chromium")
AA = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
SCHEMES = ("light", "dark")
WIDTHS = {390: 844, 768: 1024, 1280: 800}
"""Widths of a phone, a tablet and a laptop, each with its height, in CSS pixels."""


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """Give a browser without a window."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="a page is driven by Playwright: pip install playwright"
    )
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu", *flags])
        yield found
        found.close()


def faults(page: Any) -> list[str]:
    """List what axe finds on a page against WCAG 2.2, levels A and AA."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    violations = axe.run(page, options=AA).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in violations for node in one["nodes"]]


def stays_within(page: Any, width: int) -> bool:
    """Tell whether nothing of a page sticks out to the side."""
    return bool(page.evaluate("document.documentElement.scrollWidth") <= width)


def focused_unseen(page: Any, steps: int) -> list[str]:
    """Press Tab some times; list the elements that had the focus and did not show it by an outline."""
    unseen = []
    for _ in range(steps):
        page.keyboard.press("Tab")
        unseen += page.evaluate(
            """() => {
                const one = document.activeElement, shown = one.closest('.sl-drop') ?? one;
                const seen = one === document.body || getComputedStyle(shown).outlineStyle !== 'none';
                return seen ? [] : [one.outerHTML.slice(0, 200)];
            }"""
        )
    return unseen


def look_over(browser: Any, address: str) -> list[str]:
    """Open a page in every width, light and dark; list what axe, a narrow window and the keyboard find wrong with it."""
    wrong, backs = [], set()
    for scheme in SCHEMES:
        for width, height in WIDTHS.items():
            page = browser.new_page()
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            page.goto(address)
            backs.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            found = faults(page)
            found += [] if stays_within(page, width) else ["it sticks out to the side"]
            found += [f"focus is not seen on {one}" for one in focused_unseen(page, 8)]
            wrong += [f"{width}, {scheme}: {one}" for one in found]
            page.close()
    return wrong if len(backs) == len(SCHEMES) else [*wrong, f"light and dark are the same: {backs}"]
