"""One process at a time writes to a folder, and checkpoints of which none can be read are said."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sightline.errors import RunError, StorageError
from sightline.runs.folder import mark_done
from sightline.runs.locking import LOCK, alone
from sightline.training.resume_point import LAST, PARTS, PREVIOUS, checkpoint_to_resume, settle_checkpoints, steps_done

HOLD = """
import sys
from pathlib import Path
from sightline.runs.locking import alone
with alone(Path(sys.argv[1]), "trained"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_in_a_sentence_until_the_first_has_ended(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with (
        pytest.raises(RunError, match=f"{tmp_path} is being trained by another process; wait for it, or end it"),
        alone(tmp_path, "trained"),
    ):
        pass
    first.kill()  # as a kill -9 does: the system lets the lock go
    first.wait()
    first.stdout.close()
    with alone(tmp_path, "trained"):
        pass


def test_two_trainings_of_one_process_are_kept_apart_too(tmp_path: Path) -> None:
    with alone(tmp_path, "tuned"), pytest.raises(RunError, match="is being tuned by another"), alone(tmp_path, "tuned"):
        pass
    with alone(tmp_path, "tuned"):
        pass


def test_a_folder_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"), alone(tmp_path / "file", "trained"):
        pass


def test_the_lock_has_the_rights_that_the_umask_leaves_and_goes_when_the_run_is_done(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with alone(tmp_path, "trained"):
            assert stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == 0o600
            mark_done(tmp_path)
            assert [item.name for item in tmp_path.iterdir()] == ["DONE"]
    finally:
        os.umask(before)
    assert [item.name for item in tmp_path.iterdir()] == ["DONE"]


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────


def whole(step: int) -> dict[str, object]:
    return dict.fromkeys(PARTS, 1) | {"global_step": step}


def broken(kind: str, path: Path) -> None:
    if kind == "half":
        torch.save(whole(3), path)
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "words":
        path.write_bytes(b"half of it")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "of another program":
        torch.save({"model": {}, "step": 3}, path)
    elif kind == "a tensor":
        torch.save(torch.ones(3), path)
    elif kind == "code":
        torch.save({"global_step": print}, path)


KINDS = ("half", "empty", "words", "of another program", "a tensor", "code")


@pytest.mark.parametrize("kind", KINDS)
def test_where_no_checkpoint_can_be_read_the_way_out_is_said(tmp_path: Path, kind: str) -> None:
    broken(kind, tmp_path / LAST)
    for count in (1, 2):
        with pytest.raises(RunError) as caught:
            settle_checkpoints(tmp_path)
        sentence = str(caught.value)
        assert sentence.startswith(f"{tmp_path} cannot be continued: ")
        assert "copy the run again, or add --restart to begin at its first epoch." in sentence
        assert (PREVIOUS in sentence) == (count == 2)
        assert len(sentence) < 800
        broken(kind, tmp_path / PREVIOUS)
    assert checkpoint_to_resume(tmp_path) is None
    assert steps_done(tmp_path) == 0
    assert settle_checkpoints(tmp_path, restart=True) == ""
    assert list(tmp_path.iterdir()) == []


def test_what_a_checkpoint_of_another_program_lacks_is_named(tmp_path: Path) -> None:
    broken("of another program", tmp_path / LAST)
    with pytest.raises(RunError, match=r"it lacks state_dict, optimizer_states, .*cannot be read"):
        settle_checkpoints(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_checkpoint_that_is_taken_is_said(tmp_path: Path, kind: str) -> None:
    broken(kind, tmp_path / LAST)
    torch.save(whole(7), tmp_path / PREVIOUS)
    assert checkpoint_to_resume(tmp_path) == tmp_path / PREVIOUS
    assert steps_done(tmp_path) == 7
    said = settle_checkpoints(tmp_path)
    assert said.startswith("last.ckpt cannot be read (")
    assert said.endswith("): going on from previous.ckpt, which is older.")


def test_a_whole_checkpoint_and_none_at_all_need_no_word(tmp_path: Path) -> None:
    assert settle_checkpoints(tmp_path) == ""
    torch.save(whole(9), tmp_path / LAST)
    assert settle_checkpoints(tmp_path) == ""
    assert steps_done(tmp_path) == 9
    (tmp_path / LAST).rename(tmp_path / PREVIOUS)  # killed between two renames
    assert settle_checkpoints(tmp_path) == ""
