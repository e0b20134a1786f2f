"""Our batches, network, loss and rates in a Trainer of your own, with a callback of yours; a run behind it.

python examples/trainer/train.py photos/ runs/mine
"""

import sys
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

import sightline


class GradientNorm(Callback):
    """Notes the norm of all gradients before each step."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        squares = [weight.grad.pow(2).sum() for weight in pl_module.parameters() if weight.grad is not None]
        self.norms.append(float(sum(squares)) ** 0.5)


def train(data: Path, run: Path, work: Path, epochs: int = 20) -> list[float]:
    """Train, and return the gradient norms; logs and checkpoints go to ``work``, what was trained to ``run``."""
    prepared = sightline.prepare(data, recipe="small", settings={"fit": {"epochs": epochs}})
    norms = GradientNorm()
    trainer = lightning.Trainer(
        **prepared.trainer,
        callbacks=[
            *prepared.callbacks,
            norms,
            EarlyStopping("val_loss", patience=5),
            ModelCheckpoint(work, monitor="val_acc", mode="max"),
        ],
        logger=CSVLogger(work),
        log_every_n_steps=1,
    )
    trainer.fit(prepared.module, prepared.datamodule)
    prepared.finish(trainer, run)
    print(f"{run}: accuracy {sightline.evaluate(run)['accuracy']:.1%} on images that it had not seen")
    return norms.norms


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), Path("lightning_logs"))
