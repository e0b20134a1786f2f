"""The ten-minute contest: how a rival's pace is read off its output, and how many epochs it gets."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "contest"

FASTAI = [  # as fastai 2.8.12 writes, with fine_tune(1); what follows a carriage return is a line of its own
    (10.0, "█"),
    (10.0, "epoch     train_loss  valid_loss  accuracy  time    "),
    (15.0, "Epoch 1/1 : |███████---------------------------------| 16.67% [1/6 00:12<01:00]"),
    (40.0, "0         1.407553    0.222986    0.800000  00:30     "),
    (40.0, "epoch     train_loss  valid_loss  accuracy  time    "),
    (90.0, "0         0.117600    0.022951    1.000000  00:50     "),
    (100.0, "test accuracy: 91.6667"),
    (102.0, ""),
]

TIMM = [  # as timm 1.0.31 and its scripts write
    (7.0, "Model tf_efficientnet_lite0 created, param count:3374851"),
    (8.0, "Scheduled epochs: 1 (epochs + cooldown_epochs). Warmup within epochs when warmup_prefix=False."),
    (20.0, "Train: 0 [   0/6 ( 17%)]  Loss: 3.38 (3.38)"),
    (58.0, "*** Best metric: 60.0 (epoch 0)"),
    (66.0, "Model tf_efficientnet_lite0 created, param count: 3374851"),
    (90.0, " * Acc@1 81.250 (18.750) Acc@5 100.000 (0.000)"),
    (91.0, ""),
]


@pytest.fixture(scope="module")
def contest() -> ModuleType:
    spec = importlib.util.spec_from_file_location("contest", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["contest"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_fastai_s_frozen_epoch_and_test_are_counted_once_and_its_start_is_not_scaled(contest: ModuleType) -> None:
    pace = contest.fastai_pace(FASTAI, share=4)
    assert (pace.start, pace.epoch, pace.once) == (10, 4 * 50, 4 * (30 + 12))
    assert pace.seconds(1) == 10 + 4 * 92


def test_timm_starts_twice_and_neither_start_is_scaled(contest: ModuleType) -> None:
    pace = contest.timm_pace(TIMM, share=4)
    assert (pace.start, pace.epoch, pace.once) == (8 + 8, 4 * 50, 4 * 25)


def test_a_whole_set_that_is_rehearsed_with_one_epoch_is_predicted_exactly(contest: ModuleType) -> None:
    assert contest.fastai_pace(FASTAI, share=1).seconds(1) == FASTAI[-1][0]
    assert contest.timm_pace(TIMM, share=1).seconds(1) == TIMM[-1][0]


@pytest.mark.parametrize(("limit", "epochs"), [(660, 3), (659, 2), (100, 1)])
def test_a_rival_gets_the_most_epochs_that_end_within_the_limit_and_at_least_one(
    contest: ModuleType, limit: float, epochs: int
) -> None:
    assert contest.most_epochs(contest.Pace(start=10, epoch=200, once=50), limit) == epochs


def test_output_of_another_version_is_refused(contest: ModuleType) -> None:
    with pytest.raises(SystemExit, match="another version"):
        contest.timm_pace(FASTAI, share=1)


def test_lines_typed_leave_out_what_fills_in_the_arguments(contest: ModuleType) -> None:
    assert contest.lines_typed(FOLDER / "fastai_contest.py") == 6
    assert contest.lines_typed(FOLDER / "timm_contest.sh") == 3


def test_the_rehearsal_has_a_fourth_of_each_class_and_at_least_one(contest: ModuleType, tmp_path: Path) -> None:
    for split, files in (("train", 8), ("val", 1), ("test", 4)):
        for kind in ("apple", "milk"):
            (tmp_path / "all" / split / kind).mkdir(parents=True)
            for number in range(files):
                (tmp_path / "all" / split / kind / f"{number}.jpg").write_bytes(b"")
    share = contest._link_every(tmp_path / "all", tmp_path / "few", 4)
    linked = sorted(str(path.relative_to(tmp_path / "few")) for path in tmp_path.glob("few/*/apple/*"))
    assert linked == ["test/apple/0.jpg", "train/apple/0.jpg", "train/apple/4.jpg", "val/apple/0.jpg"]
    assert share == 26 / 8


def test_the_table_has_wilson_s_interval_and_both_seconds(contest: ModuleType) -> None:
    row = contest.Row(way="fastai", accuracy=81 / 263, n=263, seconds=611.4, predicted=598.0, epochs=2, lines=6)
    text = contest.table([row])
    assert "accuracy on test (n = 263)" in text
    assert text.endswith("| fastai | 0.3080 (0.2553 to 0.3662) | 611 | 598 | 2 | 6 |")
