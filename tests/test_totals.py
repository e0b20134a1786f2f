"""What is counted while a network learns."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sightline.data.batches import Batch
from sightline.training.losses import balanced_weights, classification_loss, generalized_cross_entropy
from sightline.training.totals import COUNT_EVERY, Totals


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


# ── weights of the classes ───────────────────────────────────────────────────────────────────────────────────────────


def test_balanced_weights_let_every_class_count_the_same_and_are_one_on_average():
    labels = np.array([0] * 16 + [1] * 3 + [2])
    weights = balanced_weights(labels, 3)
    assert weights.tolist() == pytest.approx([20 / 48, 20 / 9, 20 / 3])
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert [float(weights[label]) * int((labels == label).sum()) for label in range(3)] == pytest.approx([20 / 3] * 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_image_counts_by_the_weight_of_its_class_and_is_pulled_to_no_other(smoothing):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels, weights = torch.tensor([0, 0, 1, 2]), torch.tensor([0.5, 1.0, 18.0])
    loss, _ = classification_loss(nn.Identity(), Batch(logits, labels, 0, 0), smoothing, weights)
    plain = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    assert float(loss) == pytest.approx(float((plain * torch.tensor([0.5, 0.5, 1.0, 18.0])).mean()))

    common = logits[:1].clone().requires_grad_()
    classification_loss(nn.Identity(), Batch(common, labels[:1], 0, 0), smoothing, weights)[0].backward()
    gradient = common.grad.clone()
    common.grad = None
    classification_loss(nn.Identity(), Batch(common, labels[:1], 0, 0), smoothing)[0].backward()
    assert torch.allclose(gradient, 0.5 * common.grad)


def test_a_mixed_image_counts_by_the_weights_of_both_its_classes():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    own, partner, shares = torch.tensor([0, 2]), torch.tensor([1, 0]), torch.tensor([0.75, 0.5])
    weights = torch.tensor([0.5, 1.0, 18.0])
    batch = Batch(logits, own, 0, 0, 1.0, partner, shares)
    loss, _ = classification_loss(nn.Identity(), batch, 0.1, weights)
    of = [functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none") for labels in (own, partner)]
    first = 0.75 * 0.5 * of[0][0] + 0.25 * 1.0 * of[1][0]
    second = 0.5 * 18.0 * of[0][1] + 0.5 * 0.5 * of[1][1]
    assert float(loss) == pytest.approx(float((first + second) / 2))


# ── labels with errors ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_robust_loss_is_the_formula_of_the_paper_and_an_improbable_label_pulls_little():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1])
    p = logits.softmax(1)[torch.arange(5), labels]
    assert torch.allclose(generalized_cross_entropy(logits, labels), (1 - p**0.7) / 0.7)
    pull = []
    for margin in (0.0, 6.0):  # undecided, and sure of another class
        two = torch.tensor([[0.0, margin]], requires_grad=True)
        generalized_cross_entropy(two, torch.tensor([0])).sum().backward()
        pull.append(float(two.grad.abs().max()))
    assert pull[1] < 0.05 * pull[0]
    sure = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    generalized_cross_entropy(sure, torch.tensor([0])).sum().backward()
    assert torch.isfinite(sure.grad).all()


def test_the_robust_loss_counts_by_the_weights_of_classes_and_the_shares_of_mixed_images():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    own, partner, shares = torch.tensor([0, 2]), torch.tensor([1, 0]), torch.tensor([0.75, 0.5])
    weights = torch.tensor([0.5, 1.0, 18.0])
    batch = Batch(logits, own, 0, 0, 1.0, partner, shares)
    loss, _ = classification_loss(nn.Identity(), batch, 0.0, weights, kind="generalized_cross_entropy")
    of = [generalized_cross_entropy(logits, labels) * weights[labels] for labels in (own, partner)]
    assert float(loss) == pytest.approx(float(torch.lerp(of[1], of[0], shares).mean()))
    plain, _ = classification_loss(nn.Identity(), Batch(logits, own, 0, 0), kind="generalized_cross_entropy")
    assert float(plain) == pytest.approx(float(generalized_cross_entropy(logits, own).mean()))
