"""The device, its number formats, its generators and its speed."""

import traceback

import pytest
import torch

from sightline.errors import ConfigError
from sightline.machine.devices import (
    arithmetic,
    choose_device,
    convolution_flops,
    describe,
    seed_generators,
    share_of_machine,
)

CPU = torch.device("cpu")


def test_seeding_repeats_what_is_drawn_as_manual_seed_does() -> None:
    seed_generators(CPU, 7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.rand(3).equal(drawn)


def test_seeding_takes_no_trace_of_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.manual_seed takes one for every kind of device that is not started: a third of a millisecond a step."""

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(traceback, "format_stack", refuse)
    if not torch.cuda.is_initialized():
        with pytest.raises(AssertionError):
            torch.manual_seed(1)
    seed_generators(CPU, 1)


def test_the_probe_finds_a_speed_and_draws_no_random_numbers() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    assert convolution_flops(CPU, torch.float32, seconds=0.01) > 1e9  # a slow phone reaches as much
    assert torch.rand(1).equal(wanted)


def test_a_precision_is_a_number_format() -> None:
    assert arithmetic("float32", CPU) == torch.float32
    assert arithmetic("bfloat16", CPU) == torch.bfloat16
    assert arithmetic("auto", CPU) in (torch.float32, torch.bfloat16)
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        arithmetic("float16", CPU)


def test_a_device_is_described_in_words_and_an_unknown_one_refused() -> None:
    assert "thread" in describe(CPU)
    assert choose_device("cpu") == CPU
    with pytest.raises(ConfigError, match="unknown device 'abacus'; wanted cpu, cuda"):
        choose_device("abacus")


def test_processes_side_by_side_share_threads_and_gpus_and_one_alone_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert share_of_machine(0, 1) == {}
    shares = [share_of_machine(worker, 3) for worker in range(3)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["4", "7", "4"]
    assert {share["OMP_NUM_THREADS"] for share in shares} == {"1"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert share_of_machine(1, 2) == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert share_of_machine(1, 8) == {"OMP_NUM_THREADS": "1"}
