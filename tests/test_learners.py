"""What is counted while a network learns."""

import math

import pytest
import torch

from sightline.learners import COUNT_EVERY, Totals


def batches(count, images=4, classes=3):
    generator = torch.Generator().manual_seed(0)
    for step in range(count):
        logits = torch.randn(images + step % 2, classes, generator=generator)
        yield (
            torch.rand((), generator=generator),
            logits,
            torch.randint(0, classes, (len(logits),), generator=generator),
            step,
        )


def added(count, look_every=None):
    totals = Totals()
    for batch in batches(count):
        totals.add(*batch)
        if look_every and batch[3] % look_every == 0:
            assert totals.sums[2] > 0
    return totals


@pytest.mark.parametrize("count", [1, COUNT_EVERY - 1, COUNT_EVERY, COUNT_EVERY + 1, 3 * COUNT_EVERY + 7])
def test_every_batch_is_counted_once(count):
    loss, right, images = added(count).sums
    expected = list(batches(count))
    assert images == sum(len(labels) for *_, labels, _ in expected)
    assert right == sum(int((logits.argmax(1) == labels).sum()) for _, logits, labels, _ in expected)
    assert loss == pytest.approx(sum(float(loss) * len(labels) for loss, _, labels, _ in expected), rel=1e-12)


@pytest.mark.parametrize("look_every", [1, 7, COUNT_EVERY])
def test_looking_changes_no_digit(look_every):
    assert added(137, look_every).sums == added(137).sums


def test_a_taken_epoch_is_not_counted_again():
    totals = added(COUNT_EVERY + 3)
    assert totals.take() != (0.0, 0, 0)
    assert totals.take() == (0.0, 0, 0)


def test_sums_go_on_where_they_stood():
    second = Totals(*added(30).sums)
    for batch in list(batches(137))[30:]:
        second.add(*batch)
    assert second.sums == added(137).sums


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_step_that_is_not_finite_is_known(bad):
    totals = Totals()
    for loss, logits, labels, step in batches(COUNT_EVERY + 20):
        totals.add(torch.tensor(bad) if step in (13, 14, COUNT_EVERY + 1) else loss, logits, labels, step)
    assert totals.first_bad_step == 13
    assert added(20).first_bad_step is None


def test_what_waits_holds_no_graph():
    totals = Totals()
    logits = torch.randn(2, 3, requires_grad=True)
    totals.add(logits.sum(), logits * 2, torch.tensor([0, 1]), 0)
    assert all(not item.requires_grad for item in totals._waiting[0][:2])
