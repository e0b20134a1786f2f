"""Nothing that the core or `all` installs forbids commercial use, and the docs list it."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def licenses() -> ModuleType:
    """docs/make_licenses.py, which is no part of the package."""
    pytest.importorskip("packaging")
    spec = importlib.util.spec_from_file_location("make_licenses", ROOT / "docs" / "make_licenses.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for its types
    spec.loader.exec_module(module)
    return module


def test_nothing_that_is_installed_forbids_commercial_use(licenses: ModuleType) -> None:
    packages = licenses.installed()
    assert {"torch", "lightning", "pillow"} <= {package.name for package in packages if package.part is None}
    assert [package.objection for package in packages if package.objection] == []


def test_the_page_lists_whatever_is_installed_and_pinned(licenses: ModuleType) -> None:
    """On other systems other packages are installed; those that are pinned are of the system where it was written."""
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in pinned}
    rows = set(re.findall(r"^\| ([\w-]+) \|", licenses.PAGE.read_text("utf-8"), re.MULTILINE))
    assert [package.name for package in licenses.installed() if package.name in names - rows] == [], "make licenses"


@pytest.mark.parametrize(
    ("text", "permitted"),
    [
        ("MIT", True),
        ("Apache-2.0 WITH LLVM-exception AND BSD-3-Clause", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("AGPL-3.0-or-later", False),
        ("CC-BY-NC-4.0", False),
        ("LicenseRef-Proprietary", False),
        ("", False),
    ],
)
def test_a_license_that_is_not_known_to_permit_it_is_named(licenses: ModuleType, text: str, permitted: bool) -> None:
    assert (licenses.Package("some-package", text, None).objection is None) == permitted
