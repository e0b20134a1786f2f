"""Programs that compute at once in bfloat16 share the processor's cores."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sightline
from sightline.machine import cores
from sightline.machine.cores import CoreShare

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "EVERY", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_programs_count_each_other_and_give_back() -> None:
    with CoreShare(CPU, torch.bfloat16) as first:
        assert first.programs == 1
        assert torch.get_num_threads() == 4
        torch.set_num_threads(4)  # the second is another process, which starts with all
        with CoreShare(CPU, torch.bfloat16) as second:
            assert second.programs == 2
            assert torch.get_num_threads() == 2
            torch.set_num_threads(4)
            assert first.adjust()
            assert (first.programs, torch.get_num_threads()) == (2, 2)
            assert not first.adjust()  # nothing has changed since
        assert torch.get_num_threads() == 4
        assert not first.adjust()
        assert first.programs == 1
    assert torch.get_num_threads() == 4


def test_threads_come_back_after_an_error() -> None:
    with CoreShare(CPU, torch.bfloat16):
        with pytest.raises(ValueError, match="wrong"), CoreShare(CPU, torch.bfloat16):
            raise ValueError("wrong")
        with CoreShare(CPU, torch.bfloat16) as again:
            assert again.programs == 2


def test_more_programs_than_threads_compute_on_one_each() -> None:
    shares = [CoreShare(CPU, torch.bfloat16) for _ in range(6)]
    for share in shares:
        share.threads = 4
        share.__enter__()
    assert torch.get_num_threads() == 1
    for share in shares:
        share.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("dtype", "wanted", "variable"),
    [(torch.float32, True, None), (torch.bfloat16, False, None), (torch.bfloat16, True, "4")],
)
def test_nothing_is_shared_where_bits_are_promised(
    dtype: torch.dtype, wanted: bool, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    with CoreShare(CPU, torch.bfloat16), CoreShare(CPU, dtype, wanted) as share:
        torch.set_num_threads(4)
        assert not share.adjust()
        assert torch.get_num_threads() == 4


def test_a_cache_folder_that_cannot_be_written_shares_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "file"))
    with CoreShare(CPU, torch.bfloat16) as share:
        assert not share.adjust()
        assert torch.get_num_threads() == 4


@pytest.mark.parametrize(
    ("fit", "threads"),
    [({}, 2), ({"precision": "float32"}, 4), ({"deterministic": True}, 4)],
)
def test_a_training_shares_only_where_its_bits_are_not_promised(
    fit: dict[str, object], threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.machine.devices.has_fast_bfloat16", lambda device: True)
    seen: list[int] = []
    settings = {"fit": {"epochs": 1} | fit, "network": {"widths": [8, 16, 16]}, "data": {"fraction": 0.1}}
    with CoreShare(CPU, torch.bfloat16):  # another program
        sightline.train(
            "digits",
            recipe="small",
            settings=settings,
            run=tmp_path / "run",
            after_epoch=lambda epoch, row: seen.append(torch.get_num_threads()),
        )
    assert seen == [threads]
