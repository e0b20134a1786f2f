"""Write docs/reference/licenses.md: what `sightline-vision` and its extra `all` install, and under which licenses.

`make licenses` does it, by what the packages in .venv say of themselves; it fails where a license is not known to
permit commercial use. `tests/test_licenses.py` asks the same of every environment.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parent / "reference" / "licenses.md"
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
OWN = PROJECT["name"]

KNOWN = {  # what packages write that is no SPDX expression, lower case
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "apache-2.0 license": "Apache-2.0",
    "bsd license": "BSD",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd-3": "BSD-3-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "the mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "HPND", "ISC", "MIT", "MIT-0"),
    *("MIT-CMU", "OFL-1.1", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib", "ZPL-2.1"),
}
WEAK = {"MPL-2.0": "changes to its own files are published; what uses it is not touched"}
WORDS = {"AND", "OR", "WITH", "LLVM-exception", "GCC-exception-3.1"}
"""Of an SPDX expression; both exceptions permit more."""
SDK = "NVIDIA's SDK license, read: use is not limited to noncommercial; passed on only within an application"
READ = {
    "cuda-toolkit": "holds no files, only names the packages of CUDA",
    "nvidia-nccl-*": "its license file, read: BSD-3-Clause",
    "nvidia-nvtx": "its license file, read: Apache-2.0",
    "nvidia-*": f"{SDK}; comes with PyTorch for CUDA on Linux",
    "pi-heif": "its wheels bundle libheif and libde265, LGPL-3.0",
}
"""Packages whose licenses were read: they name none that is known, or bundle others. The first that fits counts."""


@dataclass(frozen=True)
class Package:
    """One package of an installation."""

    name: str
    license: str
    part: str | None
    """``all`` where an extra of it brings the package; None of the core."""

    @property
    def objection(self) -> str | None:
        """Why it may not be used before somebody has read its license; None where it may."""
        if self.note is not None:
            return None
        if any(choice and choice <= PERMISSIVE | WEAK.keys() for choice in choices_of(self.license)):
            return None
        return f"{self.name}: {self.license or 'no license named'}"

    @property
    def note(self) -> str | None:
        """What was read of it."""
        return next((note for pattern, note in READ.items() if fnmatch(self.name, pattern)), None)


def choices_of(expression: str) -> list[set[str]]:
    """Return the sets of licenses among which a user may choose; where AND binds, all that are named, to be sure."""
    parts = [expression] if " AND " in expression else expression.split(" OR ")
    return [set(re.findall(r"[\w.+-]+", part)) - WORDS for part in parts]


def license_of(found: Distribution) -> str:
    """Return what a package says of its license: an SPDX expression where it has one."""
    metadata = found.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or () if "License ::" in line]
    stated = [metadata.get("License") or "", *classifiers]
    for text in stated:
        if (name := text.strip()) in PERMISSIVE | WEAK.keys():
            return name
        if name.lower() in KNOWN:
            return KNOWN[name.lower()]
    return next((text.strip().splitlines()[0] for text in stated if text.strip()), "")


def closure(root: str, part: str | None = None) -> dict[str, Package]:
    """Return all that a requirement installs here, and what that installs, by name."""
    waiting = [Requirement(root)]
    seen: set[tuple[str, frozenset[str]]] = set()
    packages: dict[str, Package] = {}
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        if name == OWN:  # its lists in the checkout, which an older installation may not have
            texts = [*PROJECT["dependencies"]]
            texts += [text for extra in wanted.extras for text in PROJECT["optional-dependencies"][extra]]
            waiting += map(Requirement, texts)
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:  # an extra that is not installed here
            continue
        packages[name] = Package(name, license_of(found), part)
        for needed in map(Requirement, found.requires or ()):
            marked = needed.marker
            if marked is None or any(marked.evaluate({"extra": each}) for each in ("", *wanted.extras)):
                waiting.append(needed)
    return packages


def installed() -> list[Package]:
    """Return the packages of the core, and those that the extras of ``all`` add, by name."""
    core = closure(OWN)
    everything = closure(f"{OWN}[all]", part="all")
    return [core.get(name, package) for name, package in sorted(everything.items())]


def page(packages: Iterable[Package]) -> str:
    """Return the page, in Markdown."""
    lines = [
        "# Licenses",
        "",
        "What `pip install sightline-vision` (core) and its extra `all` install, and under which licenses: none of them",
        "forbids commercial use. Written by `make licenses` (`docs/make_licenses.py`) from what the packages say of",
        "themselves, on Linux with the versions of `constraints.txt`; `tests/test_licenses.py` asks the same of whatever is",
        "installed. That is no legal advice. The extras `mobile`, `docs` and `dev` are not in `all`, and not here.",
        "",
        "Wheels bundle libraries of others: those of numpy, scipy and scikit-learn the runtime of GCC (GPL-3.0 with its",
        "exception for programs of any license; numpy also libquadmath, LGPL-2.1), those of pi-heif libheif and libde265",
        "(LGPL-3.0). None of that forbids commercial use; who passes such wheels on passes their terms on.",
        "",
        "Weights and images that come along (Apache-2.0, MIT) are in `NOTICE`. Weights that are loaded by name have licenses",
        "of their own: a training prints one that restricts.",
        "",
        "| package | license | part | |",
        "|---|---|---|---|",
    ]
    for package in packages:
        note = package.note or next((WEAK[name] for name in WEAK if name in package.license), "")
        lines.append(f"| {package.name} | {package.license} | {package.part or 'core'} | {note} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page, or say what has to be read first."""
    packages = installed()
    objections = [package.objection for package in packages if package.objection]
    if objections:
        sys.exit("Read these licenses, and add what you found to docs/make_licenses.py:\n" + "\n".join(objections))
    PAGE.write_text(page(packages), "utf-8")
    print(f"{len(packages)} packages in {PAGE.relative_to(PAGE.parents[2])}")


if __name__ == "__main__":
    main()
