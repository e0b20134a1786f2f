"""A recipe: all blocks of settings together, and the checks of what one block asks of another."""

from sightline.config.augmentation import AugmentConfig
from sightline.config.building import Block
from sightline.config.conflicts import CLASSIFIER, EVERY, refuse_conflicts, shown_in_new_ways
from sightline.config.finetuning import FinetuneConfig, FrozenConfig, GradualConfig, PhasesConfig, UpperConfig
from sightline.config.fitting import (
    AveragingConfig,
    ClipConfig,
    DataConfig,
    EarlyStoppingConfig,
    EvaluationConfig,
    FitConfig,
    TrackConfig,
)
from sightline.config.heads import HeadConfig, refuse_unknown_layer
from sightline.config.networks import NetworkConfig, RunConfig, SpeednetConfig
from sightline.config.optimizers import OptimizerConfig, SGDConfig
from sightline.config.probing import ProbeConfig
from sightline.config.schedules import LinearConfig, PlateauConfig, ScheduleConfig

__all__ = ["Recipe"]


class Recipe(Block, frozen=True, kw_only=True):
    """Every setting of a training."""

    name: str = "custom"
    """What the recipe is called."""
    about: str = ""
    """What it is for, what it reached, on what, in how long, n."""
    image_set: str | None = None
    """What it was trained on, filled in for a run."""
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    network: NetworkConfig = SpeednetConfig()
    head: HeadConfig | None = None
    probe: ProbeConfig | None = None
    optimizer: OptimizerConfig = SGDConfig()
    schedule: ScheduleConfig = LinearConfig()
    clip: ClipConfig | None = None
    averaging: AveragingConfig | None = None
    early_stopping: EarlyStoppingConfig | None = None
    finetune: FinetuneConfig | None = None
    fit: FitConfig = FitConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    track: TrackConfig = TrackConfig()

    def _check(self) -> None:
        refuse_conflicts(self, EVERY, CLASSIFIER)
        layer, network = self.head.layer if self.head else None, self.network
        if layer is not None and not isinstance(network, RunConfig):  # of which only its folder tells what it is
            name = ":".join(filter(None, (network.kind, getattr(network, "name", None))))
            refuse_unknown_layer(layer, getattr(network, "layers", ()), name)

    @property
    def shows_two_views(self) -> bool:
        """True where every image is shown in training as it is, or mirrored, and in no other way."""
        return not shown_in_new_ways(self.augment)

    @property
    def keeps_features(self) -> bool:
        """True where what the frozen layers make of the training images is computed once and kept in memory."""
        frozen = isinstance(self.finetune, FrozenConfig) and self.finetune.features == "keep"
        return frozen or isinstance(self.finetune, UpperConfig)

    @property
    def selects(self) -> bool:
        """True where validation chooses anything while training; half of it is then kept from that, to calibrate."""
        plateau = isinstance(self.schedule, PlateauConfig) and self.schedule.monitor != "train_acc"
        restores = isinstance(self.finetune, GradualConfig | PhasesConfig) and self.finetune.restore_best != "none"
        return plateau or restores or self.early_stopping is not None or self.fit.keep != "last"
