"""What a study found, from made-up outcomes: the ranking, complete seeds, sentences, and what weakens the answer."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from sightline.config.settings import Recipe
from sightline.config.studies import Study, Variant
from sightline.measures.significance import Difference
from sightline.runs.outcomes import Measured, Outcome
from sightline.runs.writing import write_rows
from sightline.studies.findings import (
    NO_DIFFERENCE,
    STUDY_COLUMNS,
    Findings,
    points,
    study_findings,
    study_rows,
    verdict,
)

SEEDS = (0, 1, 2, 3)
NOISE = {0: 0.001, 1: -0.001, 2: 0.002, 3: 0.0}
Runs = dict[tuple[str, int], Outcome]


def study(*names: str, unequal: str = "") -> Study:
    variants = [Variant(name=name, settings={"fit": {"batch_size": 8 + at}}) for at, name in enumerate(names)]
    return Study(
        name="made", data="digits", recipe={}, seeds=SEEDS, variants=tuple(variants), baseline=names[0], unequal=unequal
    )


def outcome(name: str, seed: int, accuracy: float, *, flops: int = 10**9, test: bool = True) -> Outcome:
    shift = NOISE[(seed + name.startswith("s")) % 4] * (-1) ** len(name)  # not the same for all recipes
    return Outcome(
        name=name,
        run=Path("runs") / f"{name}-{seed}",
        recipe=Recipe(),
        image_set="digits",
        fingerprint="f",
        counts={"train": 100, "validation": 50, "test": 200},
        validation=Measured(accuracy + shift, 50),
        test=Measured(accuracy + 0.01 + shift, 200) if test else None,
        seconds=10.0,
        cost=1e12,
        flops=flops,
        backbone_flops=0,
        backbone_seconds=0.0,
        parameters=1000,
        device="a processor, 2 threads",
        versions={"torch": "2.0"},
        curves={"train_loss": [], "train_acc": [], "val_loss": [], "val_acc": []},
    )


def runs(**accuracies: float) -> Runs:
    return {(name, seed): outcome(name, seed, value) for name, value in accuracies.items() for seed in SEEDS}


def found(made: Runs, *names: str, failures: dict | None = None, unequal: str = "") -> Findings:
    return study_findings(study(*names, unequal=unequal), made, failures or {})


# ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_recipes_are_ranked_on_validation_even_where_test_says_otherwise() -> None:
    made = runs(plain=0.80, good=0.85, odd=0.90)
    for seed in SEEDS:
        made["odd", seed] = replace(made["odd", seed], test=Measured(0.5, 200))
    ranked = found(made, "plain", "good", "odd").ranked
    assert [row.name for row in ranked] == ["odd", "good", "plain"]
    assert ranked[0].test is not None
    assert ranked[0].test.mean == 0.5


def test_a_planted_difference_is_told_with_its_interval_and_an_absent_one_as_not_shown() -> None:
    answer = found(runs(plain=0.80, good=0.85, same=0.8001), "plain", "good", "same")
    rows = {row.name: row for row in answer.ranked}
    assert rows["plain"].validation is not None
    assert rows["plain"].validation.difference is None
    assert rows["good"].validation is not None
    difference = rows["good"].validation.difference
    assert difference is not None
    assert difference.low < 0.05 < difference.high
    text = " ".join(answer.lead)
    assert "3 recipes, each trained with 4 seeds on digits (100 train, 50 validation, 200 test images)" in text
    assert "Better than plain on validation: good (+5.10 points, +4." in text
    assert "No difference shown against plain on test: same." in text
    assert "would have been shown with a probability of 80\N{NO-BREAK SPACE}%" in text
    assert answer.warnings == ()


def test_a_worse_recipe_is_called_worse() -> None:
    assert "Worse than plain on test: poor (-9.90 points" in " ".join(
        found(runs(plain=0.8, poor=0.7), "plain", "poor").lead
    )
    assert verdict(Difference(-0.1, -0.2, -0.05)) == "worse"
    assert verdict(Difference(-0.1, -0.2, 0.05)) == NO_DIFFERENCE
    assert verdict(None) == ""


def test_the_table_in_csv_has_every_number_and_the_words() -> None:
    file = io.StringIO()
    write_rows(file, STUDY_COLUMNS, study_rows(found(runs(plain=0.80, good=0.85), "plain", "good")))
    good, plain = csv.DictReader(io.StringIO(file.getvalue()))
    assert (good["recipe"], good["seeds"], good["test_verdict"], plain["test_verdict"]) == ("good", "4", "better", "")
    assert float(good["validation_difference"]) == pytest.approx(0.05, abs=1e-3)
    assert float(good["test_mean"]) == pytest.approx(0.8605, abs=1e-9)  # 0.85 + 0.01 and the mean of the noise
    assert float(good["test_detectable"]) > 0
    assert plain["validation_difference"] == ""


def test_points_are_hundredths_with_a_real_minus() -> None:
    assert (points(0.0123), points(-0.0123), points(0.0123, "")) == ("+1.23", "-1.23", "1.23")


# ── what is missing ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_seeds_count_that_every_recipe_has_finished_and_it_is_said() -> None:
    made = runs(plain=0.80, good=0.85)
    del made["good", 2]
    answer = found(made, "plain", "good", failures={("good", 2): "the loss is not finite."})
    assert answer.seeds == (0, 1, 3)
    assert [len(row.outcomes) for row in answer.ranked] == [3, 3]
    assert "Not every recipe is finished with seed 2; only complete seeds count (3 of 4)." in answer.warnings
    assert "good, seed 2, failed: the loss is not finite." in answer.warnings
    assert answer.comparisons["test"] is not None
    assert answer.comparisons["test"].seeds == 3


def test_a_recipe_without_any_finished_run_is_left_out_and_costs_the_others_nothing() -> None:
    answer = found(runs(plain=0.80, good=0.85), "plain", "good", "lost")
    assert [row.name for row in answer.ranked] == ["good", "plain"]
    assert answer.seeds == SEEDS
    assert "lost has no finished run and is left out." in answer.warnings


def test_without_a_baseline_there_are_no_differences() -> None:
    made = runs(good=0.85, best=0.9)
    answer = found(made, "plain", "good", "best")
    assert answer.comparisons == {"validation": None, "test": None}
    assert [row.name for row in answer.ranked] == ["best", "good"]
    assert "The baseline plain has no finished run, so there are no differences." in answer.warnings


def test_one_seed_has_no_interval_and_that_is_said() -> None:
    made = {key: value for key, value in runs(plain=0.80, good=0.85).items() if key[1] == 0}
    answer = study_findings(msgspec.structs.replace(study("plain", "good"), seeds=(0,)), made, {})
    assert answer.ranked[0].validation is not None
    assert (answer.ranked[0].validation.deviation, answer.ranked[0].validation.interval) == (None, None)
    assert answer.ranked[0].validation.difference is None
    assert any("There is one seed, so there is no interval" in sentence for sentence in answer.warnings)


def test_no_complete_seed_leaves_nothing_to_compare() -> None:
    made = {("plain", 0): outcome("plain", 0, 0.8), ("good", 1): outcome("good", 1, 0.8)}
    answer = found(made, "plain", "good")
    assert answer.seeds == ()
    assert answer.lead == ("There is no seed with which every recipe is finished, so there is nothing to compare yet.",)
    assert next(iter(study_rows(answer)))[1] == 0


def test_a_study_that_reads_no_test_ranks_all_the_same() -> None:
    made = {key: replace(value, test=None) for key, value in runs(plain=0.80, good=0.85).items()}
    answer = found(made, "plain", "good")
    assert answer.comparisons["test"] is None
    assert answer.ranked[0].test is None
    assert not any("test" in sentence for sentence in answer.warnings)
    assert "which every run has read once" not in " ".join(answer.lead)


# ── what weakens it ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_seeds_that_change_nothing_are_no_measure() -> None:
    made = {(name, seed): outcome("same", 3, value) for name, value in (("a", 0.8), ("b", 0.9)) for seed in SEEDS}
    answer = found(made, "a", "b")
    assert any("On test the seeds made no difference at all" in sentence for sentence in answer.warnings)


def test_more_than_5_percent_more_operations_are_told_unless_meant() -> None:
    made = runs(plain=0.80, long=0.85)
    for seed in SEEDS:
        made["long", seed] = replace(made["long", seed], flops=1_040_000_000)
    assert found(made, "plain", "long").warnings == ()
    for seed in SEEDS:
        made["long", seed] = replace(made["long", seed], backbone_flops=960_000_000)
    (sentence,) = found(made, "plain", "long").warnings
    assert sentence.startswith("The recipes were not given the same: long took 2.00 times the training operations of")
    (meant,) = found(made, "plain", "long", unequal="it goes on where plain ends.").warnings
    assert "on purpose" in meant
    assert meant.endswith("it goes on where plain ends.")


def test_other_images_are_told() -> None:
    made = runs(plain=0.80, good=0.85)
    for seed in SEEDS:
        made["good", seed] = replace(made["good", seed], validation=Measured(0.85, 25))
    (sentence,) = found(made, "plain", "good").warnings
    assert "not measured on the same validation images" in sentence


def test_a_recipe_whose_seeds_scatter_far_more_than_others_is_named() -> None:
    made = runs(plain=0.80, good=0.82, strange=0.30)
    assert not any("scatter" in line for line in found(made, "plain", "good", "strange").warnings)
    for at, seed in enumerate(SEEDS):
        one = made["strange", seed]
        assert one.validation is not None
        spread = 0.3 + 100 * (one.validation.accuracy - 0.3) + 0.01 * at
        made["strange", seed] = replace(one, validation=Measured(spread, 50))
    warnings = [line for line in found(made, "plain", "good", "strange").warnings if "scatter" in line]
    assert len(warnings) == 1  # on validation, not on test
    assert warnings[0].startswith("On validation the seeds of strange scatter ")
    assert "too narrow for strange and too wide for the others: see" in warnings[0]
    (other,) = [line for line in found(made, "strange", "plain", "good").warnings if "scatter" in line]
    assert other.endswith(
        "too narrow: every difference is one to strange. More seeds would show more, or another baseline."
    )
