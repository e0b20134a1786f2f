"""Image sets of the Hugging Face hub: ``hf:OWNER/NAME``, read from their Parquet files by huggingface_hub.

A set is asked for once; from then on its commit and the names of its files are kept in the cache folder, so that a
later training sees the same images, with or without a connection. The files themselves lie in the hub's own cache.
No code of a repository is ever run: only Parquet files are fetched.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from sightline.data.sources.downloads import Progress, check_space
from sightline.data.sources.entries import Entry, Listing, check_labels
from sightline.data.sources.parquet import ImageTable
from sightline.data.sources.source import ImageSource
from sightline.data.sources.split_names import SPLIT_NAMES
from sightline.errors import DataError
from sightline.machine.extras import require
from sightline.machine.folders import cache_folder
from sightline.machine.patience import reason_of, within
from sightline.runs.hub import without_bars
from sightline.runs.writing import rename

__all__ = ["PREFIX", "HubSource", "split_of"]

PREFIX = "hf:"
CONVERTED = "refs/convert/parquet"  # the branch where the hub puts its own Parquet copy of a set
CONNECT_SECONDS = 3.0  # until the hub has answered first; its client alone would try for much longer
LIST_SECONDS = 30.0  # for the list of files with their sizes
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(/\w[\w.-]*)?")

File = tuple[str, int]  # path in the repository, bytes


class _NoRevisionError(DataError):
    """The hub has no such branch or commit."""


class HubSource(ImageSource):
    """The Parquet files of a set on the hub; ``hf:OWNER/NAME/SUBSET`` where it has several subsets."""

    def __init__(self, text: str) -> None:
        """
        Raises:
            DataError: the name is none, or a library is not installed.
        """
        named = text.removeprefix(PREFIX)
        if not _NAME.fullmatch(named):
            raise DataError(f"{text!r} names no set of the hub; wanted hf:OWNER/NAME, or hf:OWNER/NAME/SUBSET.")
        require("huggingface_hub", "hf", f"the set {text}")
        require("pyarrow", "hf", f"the set {text}")
        owner, name, *subset = named.split("/")
        self.repository, self.subset = f"{owner}/{name}", subset[0] if subset else None
        self.name = "-".join([name, *subset])
        self.location = text
        self._record = cache_folder() / "downloads" / "hf" / f"{'--'.join(named.split('/'))}.json"
        self._found: tuple[str, list[File]] | None = None
        self._tables: dict[str, ImageTable] = {}

    def fingerprint(self) -> str:
        commit, files = self._pinned()
        return f"{self.repository}@{commit} {' '.join(path for path, _ in files)}"

    def download(self, progress: Progress | None = None) -> None:
        """Have the files in the hub's cache; ``progress`` counts megabytes, file by file."""
        if self._tables:
            return
        import huggingface_hub as hub
        from huggingface_hub.constants import HF_HUB_CACHE

        kept = self._record.exists()
        commit, files = self._pinned()
        missing = [file for file in files if not isinstance(self._cached(file[0], commit), str)]
        if missing and kept:
            self._reach(commit)
        there = next(parent for parent in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if parent.exists())
        check_space(
            there, sum(size for _, size in missing), f"the download of {self.location}", "free space or set HF_HOME"
        )
        done, total = 0, max(1, sum(size for _, size in files) // 1_000_000)
        tables = {}
        with without_bars():
            for path, size in files:
                local = self._ask(
                    lambda path=path: hub.hf_hub_download(  # type: ignore[misc]
                        self.repository, path, repo_type="dataset", revision=commit, etag_timeout=CONNECT_SECONDS
                    )
                )
                tables[path] = ImageTable(Path(local), f"{path} of {self.location}")
                done += size
                if progress:
                    progress(min(done // 1_000_000, total), total)
        self._tables = tables
        if not kept:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            beside = self._record.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps({"commit": commit, "files": files}), "utf-8")
            rename(beside, self._record)

    def scan(self) -> Listing:
        self.download()
        splits = {path: split_of(path) for path in self._tables}
        has_splits = any(splits.values())
        entries, ignored = [], Counter[str]()
        for path, table in self._tables.items():
            labels = table.texts(table.column("labels", "label", "labels", "fine_label"))
            if has_splits and splits[path] is None:
                ignored[f"images in {path}, which is neither train, validation nor test"] += len(labels)
                continue
            for row, label in enumerate(labels):
                if label is None:
                    ignored["images without a label"] += 1
                else:
                    entries.append(Entry(f"{path.removesuffix('.parquet')}/{row:08d}", label, splits[path]))
        check_labels([entry.label for entry in entries], self.location, self.least)
        return Listing(entries, ignored)

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        self.download()
        rows_of: dict[str, dict[int, int]] = {}
        for index, entry in enumerate(entries):
            file, _, number = entry.path.rpartition("/")
            rows_of.setdefault(f"{file}.parquet", {})[int(number)] = index
        for path, index_of in rows_of.items():
            table = self._tables[path]
            for row, data in table.images(table.column("images", "image", "img"), sorted(index_of)):
                yield index_of[row], data

    # ── the hub ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _pinned(self) -> tuple[str, list[File]]:
        """Return (commit, files) of the set: as they were kept, or else as the hub has them now."""
        if self._found is None and self._record.exists():
            kept = json.loads(self._record.read_text("utf-8"))
            self._found = kept["commit"], [(path, size) for path, size in kept["files"]]
        if self._found is None:
            self._found = self._newest()
        return self._found

    def _newest(self) -> tuple[str, list[File]]:
        try:
            commit, files = self._list(CONVERTED)
        except _NoRevisionError:
            files = []
        if not files or any("/partial-" in path for path, _ in files):  # of large sets the hub converts only a part
            commit, files = self._list(None)
        if not files:
            raise DataError(
                f"{self.location} has no Parquet files, and the hub has not converted it; download the set and name its"
                " folder or archive."
            )
        subsets = sorted({_subset(path) for path, _ in files})
        subset = self.subset or (subsets[0] if len(subsets) == 1 else "default")
        if subset not in subsets:
            raise DataError(
                f"{self.location} has {'no such subset' if self.subset else 'several subsets'}:"
                f" name one of {', '.join(subsets)}, as in {PREFIX}{self.repository}/{subsets[0]}."
            )
        return commit, [file for file in files if _subset(file[0]) == subset]

    def _list(self, revision: str | None) -> tuple[str, list[File]]:
        """Return (commit, Parquet files) of a branch; None is the main one."""
        from huggingface_hub import HfApi

        self._reach(revision)
        info = self._ask(
            lambda: HfApi().dataset_info(self.repository, revision=revision, timeout=LIST_SECONDS, files_metadata=True),
            LIST_SECONDS,
        )
        files = [(str(file.rfilename), int(file.size or 0)) for file in info.siblings or []]
        return str(info.sha), sorted(file for file in files if file[0].endswith(".parquet"))

    def _reach(self, revision: str | None) -> None:
        """Ask for little, once: the client repeats the requests for files for half a minute."""
        from huggingface_hub import HfApi

        self._ask(
            lambda: HfApi().dataset_info(self.repository, revision=revision, timeout=CONNECT_SECONDS), CONNECT_SECONDS
        )

    def _cached(self, path: str, commit: str) -> object:
        from huggingface_hub import try_to_load_from_cache

        return try_to_load_from_cache(self.repository, path, repo_type="dataset", revision=commit)

    def _ask(self, work: Callable[[], Any], seconds: float | None = None) -> Any:
        """Ask the hub; every failure becomes one sentence."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        try:
            return work() if seconds is None else within(seconds, work)
        except RevisionNotFoundError as error:
            raise _NoRevisionError(
                f"the hub no longer has the version of {self.location} that was read here before; delete"
                f" {self._record} to take the newest, for a new training."
            ) from error
        except GatedRepoError as error:
            raise DataError(
                f"{self.location} may be read only by those who agreed to its terms; agree to them on its page, then"
                " run `hf auth login`."
            ) from error
        except RepositoryNotFoundError as error:
            raise DataError(
                f"the hub has no set {self.repository} that can be read without logging in; check the spelling, or run"
                " `hf auth login`."
            ) from error
        except Exception as error:  # whatever the hub's client raises, which changed with its versions
            raise DataError(
                f"{self.location} could not be read from the hub ({reason_of(error)}); start again with a connection"
                " (what has arrived is kept), or download the set and name its file or folder."
            ) from error


def split_of(path: str) -> str | None:
    """Return the split of a file of the hub: ``data/train-00000-of-00002.parquet``, ``default/test/0000.parquet``."""
    parts = PurePosixPath(path).with_suffix("").parts
    folder = parts[-2].lower() if len(parts) > 1 else ""
    for words in ([folder], re.split(r"[-_.\s]", parts[-1].lower())):
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
        if split:
            return split
    return None


def _subset(path: str) -> str:
    """Return the subset that a file belongs to: its first folder, unless that is a split's or the usual ``data``."""
    parts = PurePosixPath(path).parts
    first = parts[0] if len(parts) > 1 else "data"
    return "default" if first == "data" or first.lower() in SPLIT_NAMES else first
