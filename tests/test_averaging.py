"""What a training hands on in place of its last step, by numbers that can be checked by hand."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from sightline.config.fitting import EMAConfig, SWAConfig
from sightline.config.resolving import resolve
from sightline.data.batches import Batch
from sightline.errors import TrainingError
from sightline.models.base import Network
from sightline.training.callbacks.averaging import Averaging, Chosen, put_in_chosen
from sightline.training.losses import balanced_weights
from sightline.training.module import ClassifierLearner
from sightline.training.trainer import build_trainer

BATCHES = 3


class Tiny(Network):
    """Batch-norm of the images, nine filter weights, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.filters = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Linear(3, 2)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.filters(self.norm(images))
        return maps


class Watching(L.Callback):
    """Notes what a training did: weights and gradients at every optimizer step, weights at every validation."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.means: list[torch.Tensor] = []
        self.gradients: list[torch.Tensor] = []
        self.validated: list[tuple[torch.Tensor, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step > len(self.weights):
            self.weights.append(pl_module.network.head.weight.detach().clone())
            self.means.append(pl_module.network.norm.running_mean.clone())

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.optimizers[0].register_step_post_hook(self.note)  # the closure that clips is part of the step

    def note(self, optimizer: Any, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.gradients.append(torch.cat([parameter.grad.flatten().clone() for parameter in parameters]))

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        network = pl_module.network
        self.validated.append((network.head.weight.detach().clone(), network.norm.running_mean.clone()))


class Loader:
    """Lightning takes a bare list for a list of loaders."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class Images(L.LightningDataModule):
    """Batches of four images, the same in every epoch."""

    def __init__(self, batches: int = BATCHES) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.batches = [
            Batch(torch.randn(4, 3, 2, 2, generator=generator) + 1, torch.tensor([0, 1, 0, 1]), 0, position)
            for position in range(batches)
        ]
        self.splits = SimpleNamespace(train=range(4 * batches))

    def train_dataloader(self) -> Loader:
        return Loader(self.batches)

    def val_dataloader(self) -> Loader:
        return Loader(self.batches[:1])

    def sample(self, images: int) -> list[Batch]:
        return self.batches

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch


@pytest.fixture
def fit(tmp_path: Any) -> Callable[..., tuple[Any, Any, Watching]]:
    def run(batches: int = BATCHES, **settings: Any) -> tuple[L.Trainer, ClassifierLearner, Watching]:
        settings["fit"] = {"epochs": 4, "precision": "float32"} | settings.get("fit", {})
        recipe = resolve({"schedule": {"kind": "constant"}, "optimizer": {"kind": "sgd"}}, settings)
        torch.manual_seed(0)
        learner, watching = ClassifierLearner(Tiny(), recipe, batches), Watching()
        trainer = build_trainer(recipe, tmp_path)
        trainer.callbacks.insert(0, watching)  # type: ignore[attr-defined]
        trainer.fit(learner, Images(batches))
        return trainer, learner, watching

    return run


def test_ema_is_the_running_mean_and_is_what_is_validated_and_handed_on(fit) -> None:
    trainer, learner, seen = fit(averaging={"kind": "ema", "decay": 0.5, "start": 0.25})
    assert len(seen.weights) == 12
    mean, norm = seen.weights[3], seen.means[3]  # begins after a quarter of the training
    for n, (weight, statistics) in enumerate(zip(seen.weights[4:], seen.means[4:], strict=True), start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        mean, norm = decay * mean + (1 - decay) * weight, decay * norm + (1 - decay) * statistics
        if n == 2:  # the last step of the second epoch
            torch.testing.assert_close(seen.validated[1], (mean, norm))
    torch.testing.assert_close(seen.validated[0], (seen.weights[2], seen.means[2]))  # nothing is averaged yet
    torch.testing.assert_close(seen.validated[3], (mean, norm))
    assert put_in_chosen(trainer, learner) is None
    torch.testing.assert_close(learner.network.head.weight.detach(), mean)
    torch.testing.assert_close(learner.network.norm.running_mean, norm)


def test_swa_is_the_mean_of_the_ends_of_the_last_epochs_with_statistics_of_its_own(fit) -> None:
    trainer, learner, seen = fit(averaging={"kind": "swa", "start": 0.5, "anneal_epochs": 0})
    torch.testing.assert_close(seen.validated[1][0], seen.weights[5])  # the end of the second epoch is not averaged
    torch.testing.assert_close(seen.validated[2][0], seen.weights[8])
    mean = (seen.weights[8] + seen.weights[11]) / 2
    torch.testing.assert_close(seen.validated[3][0], mean)
    put_in_chosen(trainer, learner)
    torch.testing.assert_close(learner.network.head.weight.detach(), mean)
    images = torch.cat([batch.images for batch in Images().batches])
    torch.testing.assert_close(learner.network.norm.running_mean, images.mean((0, 2, 3)))
    assert learner.network.norm.momentum == 0.1  # as it was


def test_averaging_changes_nothing_of_the_training_itself(fit) -> None:
    plain = fit()[2].weights
    averaged = fit(averaging={"kind": "ema"})[2].weights
    assert all(one.equal(other) for one, other in zip(plain, averaged, strict=True))


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon", "adam", "adagrad", "rmsprop"])
def test_accumulated_gradients_are_those_of_the_mean_over_all_images_of_a_step(fit, kind: str) -> None:
    """Batch-norm normalises each batch by itself, as it does without accumulation."""
    seen = fit(batches=5, fit={"accumulate": {0: 2, 2: 1}}, optimizer={"kind": kind})[2]
    assert len(seen.weights) == len(seen.gradients) == 3 + 3 + 5 + 5
    torch.manual_seed(0)
    network, batches = Tiny(), Images(5).batches

    def gradient(*chosen: Batch) -> torch.Tensor:
        network.zero_grad()
        losses = [nn.functional.cross_entropy(network(batch.images), batch.labels) for batch in chosen]
        (torch.stack(losses).sum() / 2).backward()
        parts = [
            [network.filters.weight],
            [network.head.weight],
            [network.norm.weight, network.norm.bias, network.head.bias],
        ]
        return torch.cat([parameter.grad.flatten() for part in parts for parameter in part])

    wanted = gradient(batches[0], batches[1])  # the weights that the first step starts from
    torch.testing.assert_close(seen.gradients[0], wanted, atol=1e-6, rtol=0)


def test_the_last_shorter_step_of_an_epoch_averages_over_what_it_has(fit) -> None:
    """One batch where two would make a step: its mean gradient. Rate zero keeps the weights where they are."""
    seen = fit(batches=3, fit={"accumulate": 2}, optimizer={"kind": "sgd", "learning_rate": 1e-30})[2]
    torch.manual_seed(0)
    network, last = Tiny(), Images(3).batches[2]
    nn.functional.cross_entropy(network(last.images), last.labels).backward()
    torch.testing.assert_close(seen.gradients[1][9:15], network.head.weight.grad.flatten(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon", "adam", "adagrad", "rmsprop"])
@pytest.mark.parametrize("clip", ["norm", "value"])
def test_no_optimizer_sees_a_gradient_beyond_the_limit(fit, kind: str, clip: str) -> None:
    settings = {"fit": {"epochs": 1, "accumulate": 2}, "optimizer": {"kind": kind}}
    free = fit(**settings)[2].gradients
    clipped = fit(**settings, clip={"kind": clip, "limit": 0.01})[2].gradients
    size = (
        (lambda gradient: float(gradient.norm())) if clip == "norm" else (lambda gradient: float(gradient.abs().max()))
    )
    assert size(free[0]) > 0.01
    assert all(size(gradient) <= 0.01 * 1.0001 for gradient in clipped)
    if clip == "norm":  # the direction stays
        torch.testing.assert_close(clipped[0] / clipped[0].norm(), free[0] / free[0].norm())


def test_the_best_validation_is_handed_on_and_a_training_that_does_not_improve_stops(fit, monkeypatch) -> None:
    losses = iter([3.0, 1.0, 0.95, 2.0, 0.1])
    monkeypatch.setattr(
        ClassifierLearner,
        "on_validation_epoch_end",
        lambda self: (self.validation_totals.take(), self.log("val_loss", next(losses)))[0],
    )
    stopping = {"kind": "patience", "monitor": "val_loss", "patience": 2, "min_delta": 0.1}
    trainer, learner, seen = fit(early_stopping=stopping, fit={"epochs": 6})
    assert len(seen.validated) == 4  # epochs 3 and 4 gain less than 0.1
    assert put_in_chosen(trainer, learner) == {
        "epoch": 3,
        "monitor": "val_loss",
        "value": pytest.approx(0.95),
        "stopped_after": 4,
    }
    assert learner.network.head.weight.detach().equal(seen.weights[8])


def test_a_training_none_of_whose_validations_was_finite_hands_nothing_on() -> None:
    chosen = Chosen(resolve({"fit": {"keep": "val_loss"}}), None)
    with pytest.raises(TrainingError, match="no validation had a finite val_loss, so there are no best weights"):
        put_in_chosen(SimpleNamespace(callbacks=[chosen]), None)  # type: ignore[arg-type]


def test_before_the_averaging_begins_there_is_no_averaged_network() -> None:
    for config in (EMAConfig(), SWAConfig()):
        assert Averaging(config, 8).network is None


def test_balanced_weights_are_images_over_classes_times_images_of_the_class() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2]).numpy()
    weights = balanced_weights(labels, 3)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert float(weights[labels].sum()) == pytest.approx(10)  # on the whole an image counts one
