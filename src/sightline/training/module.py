"""The LightningModules: one short LightningModule a kind. The arithmetic is plain functions. B images, K classes."""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from sightline.config.acgan import ACGANConfig
from sightline.config.generating import AnyRecipe, GeneratorRecipe
from sightline.config.generators import DiffusionConfig, EDMConfig
from sightline.config.schedules import PlateauConfig
from sightline.config.settings import Recipe
from sightline.data.batches import Batch, derived_seed
from sightline.errors import TrainingError
from sightline.machine.devices import exact_dtype, seed_generators
from sightline.models import acgan, diffusion, edm
from sightline.models.acgan import ACGAN
from sightline.models.base import Network
from sightline.models.unet import EDMUNet, UNet
from sightline.training.losses import classification_loss
from sightline.training.optimizers import build_optimizer
from sightline.training.phases import phases_of, shares_of, whitening_epochs
from sightline.training.schedules import Plateau, Steps, falling, schedule
from sightline.training.totals import Totals

__all__ = [
    "ACGANLearner",
    "ClassifierLearner",
    "DiffusionLearner",
    "EDMLearner",
    "Learner",
    "agreed",
    "validated",
]


def agreed(trainer: L.Trainer, due: bool) -> bool:
    """Return what the first process decides, as clocks differ between processes."""
    return bool(trainer.strategy.broadcast(due)) if trainer.world_size > 1 else due


def validated(trainer: L.Trainer) -> bool:
    """Tell whether the epoch that ends was validated."""
    return trainer.fit_loop.epoch_loop._should_check_val_epoch()


class Learner(L.LightningModule):
    """The base of all kinds: one optimizer whose rates follow the steps, totals of losses, what is kept of them."""

    network: nn.Module
    measures: tuple[str, ...] = ("loss",)
    """What is measured of train and of validation."""

    def __init__(self, network: nn.Module, recipe: AnyRecipe, batches_per_epoch: int) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.batches_per_epoch = batches_per_epoch
        self.steps = Steps(recipe.fit, batches_per_epoch)
        self.phases = phases_of(recipe, network)  # by what could learn, before anything is frozen
        self._rate_shares = shares_of(recipe, network)
        self._curve = schedule(recipe.schedule, self.steps, recipe.averaging, [phase.first for phase in self.phases])
        self.plateau = Plateau(recipe.schedule) if isinstance(recipe.schedule, PlateauConfig) else None
        self.training_totals, self.validation_totals = Totals(), Totals()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning notes here which hook runs, 44 times a step;
            object.__setattr__(self, name, value)  # a module's own way looks through its parameters first
        else:
            super().__setattr__(name, value)

    def begin_step(self, batch: Batch) -> int:
        """Seed what draws random numbers by itself, such as dropout; returns the batch's position in the training."""
        seed_generators(self.device, derived_seed(self.recipe.fit.seed, batch.epoch, batch.position, self.global_rank))
        return batch.epoch * self.batches_per_epoch + batch.position

    def share_of_step(self, loss: Tensor, batch: Batch) -> Tensor:
        """Weigh a batch's loss so that its step averages over the batches that it has.

        Lightning divides every loss by the batches of a full step, and the last step of an epoch may have fewer.
        """
        weight = self.recipe.fit.batches_a_step(batch.epoch) / self.steps.batches_beside(batch.epoch, batch.position)
        return loss if weight == 1 else loss * weight

    def draws(self, *what: str | int) -> torch.Generator:
        """Return random numbers that depend on the seed and on what they are for."""
        return torch.Generator().manual_seed(derived_seed(self.recipe.fit.seed, *what))

    def on_validation_epoch_end(self) -> None:
        self._log_totals("val", self.validation_totals)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.trainer.is_last_batch:  # callbacks read it at the end of the epoch, before the module's own hook
            self._log_totals("train", self.training_totals)

    def on_train_epoch_end(self) -> None:
        if self.plateau is not None and self._measured(self.plateau.config.monitor):
            self.refuse_non_finite()
            self.plateau.see(float(self.trainer.callback_metrics[self.plateau.config.monitor]))
            self._set_rates()

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.recipe.optimizer, self.network, self._rate_shares)
        fall = falling(whitening_epochs(self.recipe), self.steps)

        def whitening(step: int) -> float:
            return fall(step) * self._phase_rate(step)

        curves: list[Callable[[int], float]] = [
            whitening if group["part"] == "whitening" else self.share for group in optimizer.param_groups
        ]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, curves)
        parts = [group["part"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:  # what the rates are called in trackers
            group["name"] = group["part"] if parts.count(group["part"]) == 1 else f"{group['part']}-{group['share']:g}"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "rate"}}

    def share(self, step: int) -> float:
        """Return the share of the peak rate that an optimizer step is taken at, by what has been measured so far."""
        return self._curve(step) * self._phase_rate(step) * (1.0 if self.plateau is None else self.plateau.factor)

    def phase_at(self, epoch: int) -> int:
        """Return which of ``phases`` an epoch is in; both are counted from 0."""
        return bisect_right([phase.first for phase in self.phases], epoch) - 1

    def begin_phase(self) -> None:
        """Let what the rate depends on by measurements begin anew, as the curve does by itself."""
        if self.plateau is not None:
            self.plateau = Plateau(self.plateau.config)
            self._set_rates()

    def _phase_rate(self, step: int) -> float:
        return self.phases[self.phase_at(int(self.steps.epochs(step)))].rate

    def _set_rates(self) -> None:
        """Take the rates from now on, not from the step after the next one on, as ``LambdaLR`` by itself would."""
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
        for group, peak, curve in zip(
            scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
        ):
            group["lr"] = peak * curve(scheduler.last_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        rows = torch.zeros(self.trainer.world_size, 3, dtype=self._exact, device=self.device)
        rows[self.global_rank] = torch.tensor(self.training_totals.sums, dtype=self._exact)
        checkpoint["training_totals"] = self.trainer.strategy.reduce(rows, reduce_op="sum").tolist()
        checkpoint["plateau"] = None if self.plateau is None else self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        loss, right, images = checkpoint["training_totals"][self.global_rank]
        self.training_totals = Totals(loss, int(right), int(images))
        if self.plateau is not None:
            self.plateau.load_state_dict(checkpoint["plateau"])

    def refuse_non_finite(self) -> None:
        """Stop where a loss was not finite, in all processes; waits for the device and for them.

        Raises:
            TrainingError: with the step, the rate, and what to try.
        """
        self._refuse_from(self.training_totals.first_bad_step)

    def _refuse_from(self, own: int | None) -> None:
        """Stop where a loss of this process, or of another one, was not finite from a batch on."""
        none = self.recipe.fit.epochs * self.batches_per_epoch
        first = torch.tensor(none if own is None else own, device=self.device)
        bad = int(self.trainer.strategy.reduce(first, reduce_op="min"))
        if bad < none:
            epoch, batch = divmod(bad, self.batches_per_epoch)
            step = self.steps.of(epoch, batch)
            rate = self.recipe.optimizer.learning_rate
            raise TrainingError(
                f"the loss is not finite from step {step} on (epoch {epoch + 1}, batch {batch + 1}, learning rate"
                f" {rate * self.share(step):.3g}); try --optimizer.learning-rate {rate / 10:g} or --fit.precision"
                " float32."
            )

    def _log_totals(self, stage: str, totals: Totals) -> None:
        sums = torch.tensor(totals.take(), dtype=self._exact, device=self.device)
        over_processes = self.trainer.strategy.reduce(sums, reduce_op="sum")
        loss, right, images = over_processes.tolist()
        means = {"loss": loss / max(images, 1), "acc": right / max(images, 1)}
        shown = {f"{stage}_{name}": mean for name, mean in means.items() if name in self.measures}
        self.log_dict(shown, logger=False)  # trackers get them from EpochLog, before the checkpoint is written

    @property
    def _exact(self) -> torch.dtype:
        return exact_dtype(self.device)

    def _measured(self, monitor: str) -> bool:
        """Tell whether a measure is new at the end of this epoch."""
        return monitor.startswith("train_") or validated(self.trainer)


class ClassifierLearner(Learner):
    """Trains a network to tell classes apart.

    The accuracy on train is counted on the images as they were shown. Where images are mixed, an image's own label
    counts as right where its share is at least a half, its partner's where it is less.
    """

    network: Network
    recipe: Recipe
    class_weights: Tensor | None
    answer_shift: Tensor | None
    measures = ("loss", "acc")

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        batches_per_epoch: int,
        class_weights: Tensor | None = None,
        answer_shift: Tensor | None = None,
    ) -> None:
        """
        Args:
            network: that is trained.
            recipe: every setting.
            batches_per_epoch: of all processes together.
            class_weights: what an image of each class counts in the loss, (K,).
            answer_shift: added to the logits of validation, (K,), as the finished classifier will add it.
        """
        super().__init__(network, recipe, batches_per_epoch)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("answer_shift", answer_shift, persistent=False)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        position = self.begin_step(batch)
        self.network.train_whitening(self._whitening_learns(batch.epoch))
        fit = self.recipe.fit
        loss, logits = classification_loss(self.network, batch, fit.label_smoothing, self.class_weights, kind=fit.loss)
        self.training_totals.add(loss, logits, batch.main_labels, position)
        return self.share_of_step(loss if batch.weight == 1 else loss * batch.weight, batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss, logits = classification_loss(self.network, batch, answer_shift=self.answer_shift)
        self.validation_totals.add(loss, logits, batch.labels, -1)

    def _whitening_learns(self, epoch: int) -> bool:
        # with several processes Lightning's ddp expects every parameter to take part; the rate is zero by then
        return epoch < whitening_epochs(self.recipe) or self.trainer.world_size > 1


class _NoiseLearner(Learner):
    """Trains a U-Net to tell noise and image apart, in images from -1 to 1."""

    recipe: GeneratorRecipe
    config: DiffusionConfig | EDMConfig

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        position = self.begin_step(batch)
        processes = self.trainer.world_size
        of = round(len(batch.labels) * processes / batch.weight)  # images of the batch, over all processes
        loss = self.loss(
            batch,
            self.draws("noise", batch.epoch, batch.position),
            drop_labels=self.config.drop_labels,
            first=of * self.global_rank // processes,
            of=of,
        )
        self.training_totals.add(loss, None, batch.labels, position)
        return self.share_of_step(loss if batch.weight == 1 else loss * batch.weight, batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        drawn = self.draws("noise on validation", batch.position, self.global_rank)  # the same in every epoch
        self.validation_totals.add(self.loss(batch, drawn), None, batch.labels, -1)

    def loss(self, batch: Batch, drawn: torch.Generator, **how: Any) -> Tensor:
        """Compute the loss of a batch; ``how`` is what the method's ``loss`` takes by name."""
        raise NotImplementedError


class DiffusionLearner(_NoiseLearner):
    """Trains a U-Net to predict the noise."""

    network: UNet

    def __init__(self, network: UNet, recipe: GeneratorRecipe, batches_per_epoch: int) -> None:
        super().__init__(network, recipe, batches_per_epoch)
        assert isinstance(recipe.generator, DiffusionConfig)
        self.config = config = recipe.generator
        self.kept_T = diffusion.linear_noise(config.noise_steps, config.first_noise, config.last_noise)

    def loss(self, batch: Batch, drawn: torch.Generator, **how: Any) -> Tensor:
        return diffusion.loss(self.network, batch.images, batch.labels, self.kept_T, drawn, **how)


class EDMLearner(_NoiseLearner):
    """Trains a U-Net to predict the image in noise of any strength."""

    network: EDMUNet

    def __init__(self, network: EDMUNet, recipe: GeneratorRecipe, batches_per_epoch: int) -> None:
        super().__init__(network, recipe, batches_per_epoch)
        assert isinstance(recipe.generator, EDMConfig)
        self.config: EDMConfig = recipe.generator

    def loss(self, batch: Batch, drawn: torch.Generator, **how: Any) -> Tensor:
        return edm.loss(self.network, batch.images, batch.labels, self.config, drawn, **how)


class ACGANLearner(Learner):
    """Trains a generator and a discriminator against each other: the steps of the one optimizer are theirs in turn.

    ``loss`` is the discriminator's; it learns first.
    """

    network: ACGAN
    recipe: GeneratorRecipe
    measures = ("loss", "generator_loss")

    def __init__(self, network: ACGAN, recipe: GeneratorRecipe, batches_per_epoch: int) -> None:
        super().__init__(network, recipe, batches_per_epoch)
        assert isinstance(recipe.generator, ACGANConfig)
        self.config = recipe.generator
        self.generator_totals = {"train": Totals(), "val": Totals()}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        position = self.begin_step(batch)
        generators_turn = self.steps.of(batch.epoch, batch.position) % 2 == 1
        self.network.discriminator.requires_grad_(not generators_turn)  # what has no gradient stays as it is
        self.network.generator.requires_grad_(generators_turn)
        drawn = self.draws("noise", batch.epoch, batch.position)
        if generators_turn:
            loss = self._generator_loss(batch, drawn)
            self.generator_totals["train"].add(loss, None, batch.labels, position)
        else:
            loss = self._discriminator_loss(batch, drawn, self.config.gradient_penalty)
            self.training_totals.add(loss, None, batch.labels, position)
        return self.share_of_step(loss, batch)

    def on_validation_epoch_start(self) -> None:
        acgan.settle(self.network.discriminator)  # of averaged weights, which are in place by now

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        place = ("noise on validation", batch.position)  # the same in every epoch
        self.validation_totals.add(self._discriminator_loss(batch, self.draws(*place)), None, batch.labels, -1)
        self.generator_totals["val"].add(self._generator_loss(batch, self.draws(*place)), None, batch.labels, -1)

    def _made(self, batch: Batch, drawn: torch.Generator) -> Tensor:
        """Make an image of each class of a batch, as the discriminator is shown it."""
        noise_BZ = torch.randn(len(batch.labels), self.config.noise_width, generator=drawn)
        images = self.network.generator(noise_BZ.to(self.device, non_blocking=True), batch.labels)
        return acgan.disguise(images, self.config.disguises, drawn)

    def _discriminator_loss(self, batch: Batch, drawn: torch.Generator, penalty: float = 0.0) -> Tensor:
        generated, real = self._made(batch, drawn), acgan.disguise(batch.images, self.config.disguises, drawn)
        return acgan.discriminator_loss(
            self.network.discriminator, real, generated, batch.labels, penalty=penalty
        ).total

    def _generator_loss(self, batch: Batch, drawn: torch.Generator) -> Tensor:
        return acgan.generator_loss(self.network.discriminator, self._made(batch, drawn), batch.labels).total

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["generator_totals"] = self.generator_totals["train"].sums

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        loss, right, images = checkpoint["generator_totals"]
        self.generator_totals["train"] = Totals(loss, int(right), int(images))

    def refuse_non_finite(self) -> None:
        bad = [totals.first_bad_step for totals in (self.training_totals, self.generator_totals["train"])]
        self._refuse_from(min((step for step in bad if step is not None), default=None))

    def _log_totals(self, stage: str, totals: Totals) -> None:
        super()._log_totals(stage, totals)
        loss, _, images = self.generator_totals[stage].take()
        self.log(f"{stage}_generator_loss", loss / max(images, 1), logger=False)
