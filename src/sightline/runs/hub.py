"""Classifiers of the Hugging Face hub, ``hf:OWNER/NAME[@REVISION]``: fetched, and pushed in one commit.

A fetched classifier lies in the hub's own cache as the folder of a run does, and is only read. Of a repository no other
files than those of ``FETCHED`` are asked for, and none of them holds code. The token is the hub's own: ``HF_TOKEN``, or
that of ``hf auth login``. Nothing here loads torch.
"""

import errno
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sightline.config.checks import shown
from sightline.errors import ConfigError, RunError, SightlineError, StorageError
from sightline.machine.extras import own_version, require
from sightline.machine.patience import reason_of, within
from sightline.runs.writing import storage_error

__all__ = [
    "CARD",
    "MODEL",
    "ONNX",
    "PREFIX",
    "WEIGHTS",
    "Commit",
    "fetched",
    "kept",
    "on_hub",
    "pinned",
    "push_files",
    "repository_name",
    "weights_of",
    "without_bars",
]

PREFIX = "hf:"
WEIGHTS, MODEL, ONNX, CARD = "model.safetensors", "model.json", "model.onnx", "README.md"
FETCHED = ("recipe.yaml", "seen.npz", "DONE", MODEL, WEIGHTS)  # in this order: a copy is whole once it has weights
OURS = (*FETCHED, ONNX, CARD, ".gitattributes")  # what a repository that was pushed holds
CONNECT_SECONDS = 3.0  # until the hub has answered first; its client alone would try for much longer
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"\w[\w./+-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")

Say = Callable[[str], None]


class Address(NamedTuple):
    """A repository on the hub, as a text names it."""

    name: str
    """OWNER/NAME."""
    revision: str | None
    """Branch, tag or commit; None: the main branch."""


@dataclass(frozen=True)
class Commit:
    """A publication."""

    url: str
    """Of the repository's page."""
    sha: str


def on_hub(run: object) -> bool:
    """Tell whether a run is named on the hub, rather than by its folder."""
    return isinstance(run, str) and run.startswith(PREFIX)


def repository_name(name: str, wanted: str = "OWNER/NAME") -> str:
    """Return the name of a repository.

    Raises:
        ConfigError: the hub can have no such name.
    """
    if not _NAME.fullmatch(name) or len(name) > 96 or "--" in name or ".." in name or name.endswith((".git", "-", ".")):
        raise ConfigError(
            f"{shown(name)} names no repository of the hub; wanted {wanted}, of letters, digits, '-', '_' and '.'."
        )
    return name


# ── fetching ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def weights_of(run: str | os.PathLike[str], say: Say | None = None) -> Path:
    """Return the path of a run, or of the fetched weights of one that is named on the hub.

    Args:
        run: a folder, a weights file, or ``hf:OWNER/NAME[@REVISION]``.
        say: hears a sentence that begins with ``warning:`` where an older copy answers; None: a Python warning.
    Raises:
        ConfigError: huggingface_hub is not installed, or the name is none.
        RunError: there is no such classifier, or it cannot be fetched.
        StorageError: the disk is full.
    """
    return fetched(str(run), say) / WEIGHTS if on_hub(run) else Path(run)


def fetched(run: str | os.PathLike[str], say: Say | None = None) -> Path:
    """Return the folder of a run, or of the fetched copy of one that is named on the hub, which must not be written to.

    Arguments and errors are those of ``weights_of``.
    """
    if not on_hub(run):
        return Path(run).expanduser()
    text = str(run)
    address = _address(text)
    if _COMMIT.fullmatch(address.revision or "") and (copy := kept(text)):
        return copy
    try:
        files = _listed(text, address)
    except _NoAnswerError as error:
        copy = kept(text)
        if copy is None:
            raise
        sentence = f"{error.reason}, so the copy of {text} on this machine answers (commit {copy.name[:12]})."
        if say is None:
            warnings.warn(sentence, stacklevel=2)
        else:
            say(f"warning: {sentence}")
        return copy
    if missing := next((name for name in (MODEL, WEIGHTS) if name not in files), None):
        raise RunError(
            f"{text} has no {missing}, so it is no classifier of sightline; wanted what `sightline push` has published."
        )
    return _download(text, address, [name for name in FETCHED if name in files])


def kept(run: str) -> Path | None:
    """Return the folder of a fetched classifier that is on this machine already; the hub is not asked."""
    address = _address(run)
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(address.name, name, revision=address.revision) for name in (MODEL, WEIGHTS)]
    folders = {Path(path).parent for path in paths if isinstance(path, str)}
    return folders.pop() if len(folders) == 1 and all(isinstance(path, str) for path in paths) else None


def pinned(run: str, say: Say | None = None) -> str:
    """Return a name of a classifier on the hub with its commit, by which the same one is fetched for ever."""
    return f"{PREFIX}{_address(run).name}@{fetched(run, say).name}"


def _address(text: str) -> Address:
    require("huggingface_hub", "hf", text)
    name, _, revision = text.removeprefix(PREFIX).partition("@")
    if "@" in text and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise ConfigError(f"{shown(text)} names no revision behind the @; wanted a branch, a tag or a commit.")
    return Address(repository_name(name, "hf:OWNER/NAME, or hf:OWNER/NAME@REVISION"), revision or None)


def _listed(text: str, address: Address) -> set[str]:
    """Return the names of the files of a repository."""
    from huggingface_hub import HfApi

    def ask() -> Any:
        return HfApi().model_info(address.name, revision=address.revision, timeout=CONNECT_SECONDS)

    with _spoken(text):
        info = within(CONNECT_SECONDS, ask)  # before any file: of those the client asks for half a minute
        return {str(file.rfilename) for file in info.siblings or []}


def _download(text: str, address: Address, names: list[str]) -> Path:
    """Have files of one commit in the hub's cache; returns their folder, which is called like the commit."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    with _spoken(text, HF_HUB_CACHE), without_bars():
        # the first by the name of its branch, so that the cache knows later which commit that was
        folder = Path(hf_hub_download(address.name, names[0], revision=address.revision)).parent
        for name in names[1:]:
            hf_hub_download(address.name, name, revision=folder.name)
        return folder


# ── pushing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def push_files(name: str, files: Mapping[str, bytes | Path], message: str, *, private: bool) -> Commit:
    """Publish files as one commit: all of them, or none.

    Args:
        name: OWNER/NAME; made if need be.
        files: content, or the file that holds it, by name. Of what an earlier push published no other file stays.
        message: of the commit.
        private: make the repository private.
    Raises:
        ConfigError: huggingface_hub is not installed, nobody is logged in, or the repository is of another kind.
        StorageError: the hub does not take them.
    """
    require("huggingface_hub", "hf", "sightline push")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    if get_token() is None:
        raise ConfigError(
            "nobody is logged in to the hub, so nothing can be pushed; run `hf auth login`, or set HF_TOKEN to a token"
            " that may write."
        )
    api = HfApi(library_name="sightline", library_version=own_version())
    with _spoken(name, pushing=True), without_bars():
        there = within(CONNECT_SECONDS, lambda: api.repo_exists(name))
        if not there:
            api.create_repo(name, private=private or None, exist_ok=True)
        info = api.model_info(name)
        own = {str(file.rfilename) for file in info.siblings or []}
        _refuse_other_repository(name, own, wanted_private=private, private=bool(info.private))
        content = [
            CommitOperationAdd(path, file if isinstance(file, bytes) else os.fspath(file))
            for path, file in files.items()
        ]
        stale = [CommitOperationDelete(path) for path in sorted({*FETCHED, ONNX} & own - files.keys())]
        made = api.create_commit(name, [*content, *stale], commit_message=message, parent_commit=info.sha)
    return Commit(f"{api.endpoint}/{name}", str(made.oid))


def _refuse_other_repository(name: str, files: set[str], *, wanted_private: bool, private: bool) -> None:
    """Refuse to write into what sightline did not make, and to take a public repository for a private one."""
    if wanted_private and not private:
        raise ConfigError(
            f"{name} is public, and --private makes only new repositories private; change that on its page, or"
            " name another one."
        )
    if MODEL not in files and (other := sorted(files - {*OURS})):
        raise ConfigError(
            f"{name} holds {shown(other[0])} and no {MODEL}, so it is no classifier of sightline; name another"
            " repository, so that nothing of it is overwritten."
        )


# ── what the hub says ────────────────────────────────────────────────────────────────────────────────────────────────


class _NoAnswerError(RunError):
    """The hub did not answer."""

    reason = ""


@contextmanager
def _spoken(what: str, cache: str | None = None, *, pushing: bool = False) -> Any:
    """Turn whatever the hub's client raises into one sentence."""
    try:
        yield
    except SightlineError:
        raise
    except Exception as error:  # of any of the client's layers, which changed with its versions
        raise _sentence(error, what, cache, pushing) from error


def _sentence(error: Exception, what: str, cache: str | None, pushing: bool) -> SightlineError:
    """Return the error with its sentence: what was asked for, what the hub said, and what to do."""
    from huggingface_hub import errors, get_token

    status = getattr(getattr(error, "response", None), "status_code", None)
    known = get_token() is not None
    if isinstance(error, OSError) and cache is not None and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return storage_error(Path(cache), error)
    if pushing:
        return _refused_push(error, what, status)
    match error:
        case errors.GatedRepoError():
            log_in = "" if known else ", then run `hf auth login`"
            return RunError(
                f"{what} may be read only by those who agreed to its terms; agree to them on its page{log_in}."
            )
        case errors.RepositoryNotFoundError():
            name = what.removeprefix(PREFIX).partition("@")[0]
            whom = "with the token of this machine" if known else "without logging in"
            log_in = "log in as someone who may read it" if known else "run `hf auth login`"
            return RunError(
                f"the hub shows no model {name} {whom}: there is none, or it is private; check the spelling, or"
                f" {log_in}."
            )
        case errors.RevisionNotFoundError():
            return RunError(f"{what}: the repository has no such branch, tag or commit; check what is behind the @.")
    if status in (401, 403):
        return RunError(f"the hub does not accept the token of this machine for {what}; run `hf auth login` again.")
    reason = f"the hub did not answer ({reason_of(error)})"
    silent = _NoAnswerError(f"{what} could not be fetched: {reason}; try again with a connection.")
    silent.reason = reason
    return silent


def _refused_push(error: Exception, name: str, status: int | None) -> SightlineError:
    from huggingface_hub import errors

    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return ConfigError(
            f"the token of this machine may not write to {name}; run `hf auth login` with one that may, or name a"
            " repository of your own."
        )
    if status in (409, 412):
        return StorageError(f"{name} was changed meanwhile, so nothing was published; run the command again.")
    return StorageError(
        f"{name} could not be pushed ({reason_of(error)}); nothing of it was published: run the command again."
    )


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide the hub's bars, since ours are shown: two would fight for the line."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()
