"""What training touches of Lightning and PyTorch that is private to them, in one list; it fails where a release changes one."""

import ast
import inspect
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

import sightline

TRAINING = Path(sightline.__file__).parent / "training"
PRIVATE: dict[str, object] = {
    "_should_check_val_epoch": _TrainingEpochLoop,  # module.validated: whether the epoch that ends was validated
    "_current_fx_name": LightningModule,  # module.Learner: noted 44 times a step, past the search of parameters
    "_average_model": WeightAveraging,  # callbacks.averaging: the mean of the weights
    "_latest_update_step": WeightAveraging,  # callbacks.averaging: whether a step was averaged
    "_wandb_init": WandbLogger,  # trackers: an argument that wandb warns of
    "_compiled_call_impl": torch.nn.Module,  # callbacks.steps: validation runs as written
    "_dynamo": torch,  # callbacks.steps: how many sizes are compiled for
}
"""Each private member with what it is a member of, and where and why it is touched."""


def private_members_touched() -> set[str]:
    """The private names that the room reads or writes and does not define."""
    touched, own = (
        {"_current_fx_name"},
        {"_replace", "_labels"},
    )  # named in a string; of named tuples, and of ``TrainingBatches``
    for path in TRAINING.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                mine = isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
                (own if mine else touched).add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                own.add(node.name)
    return {name for name in touched - own if not name.startswith(("_Batch", "_Instance"))}


def test_every_private_member_that_is_touched_is_listed() -> None:
    assert private_members_touched() == set(PRIVATE)


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_member_is_still_there(name: str) -> None:
    owner = PRIVATE[name]
    assert hasattr(owner, name) or name in inspect.getsource(owner)  # type: ignore[arg-type]


def test_where_a_resumed_training_stands_is_still_told() -> None:
    loop = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True).fit_loop
    assert loop.epoch_progress.current.processed == 0  # datamodule: the epoch of the batches
    assert loop.epoch_loop.total_batch_idx == -1  # callbacks.progress: the batches that are done
