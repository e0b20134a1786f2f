"""A recipe: all blocks of settings together, and the checks of what one block asks of another."""

from itertools import accumulate, pairwise

from sightline.config.augmentation import AugmentConfig
from sightline.config.building import Block
from sightline.config.checks import shown
from sightline.config.finetuning import (
    FinetuneConfig,
    FrozenConfig,
    GradualConfig,
    PhasesConfig,
    UpperConfig,
    phase_epochs,
)
from sightline.config.fitting import (
    AveragingConfig,
    ClipConfig,
    DataConfig,
    EarlyStoppingConfig,
    EMAConfig,
    EvaluationConfig,
    FitConfig,
    TrackConfig,
)
from sightline.config.heads import GraphAttentionHeadConfig, HeadConfig, SelfAttentionHeadConfig, refuse_unknown_layer
from sightline.config.networks import NetworkConfig, RunConfig, SpeednetConfig
from sightline.config.optimizers import OptimizerConfig, SGDConfig
from sightline.config.probing import ProbeConfig
from sightline.config.schedules import (
    CyclicConfig,
    LinearConfig,
    MultiStepConfig,
    OneCycleConfig,
    PlateauConfig,
    ScheduleConfig,
    StepConfig,
)
from sightline.errors import ConfigError

__all__ = ["Recipe", "check_averaging", "check_name", "check_schedule"]


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

    def check(self) -> None:
        check_name(self.name)
        lengths = phase_epochs(self.finetune, self.fit.epochs)
        check_schedule(self.schedule, self.fit, lengths)
        if self.averaging is not None:
            check_averaging(self.averaging, self.schedule, self.early_stopping, lengths)
        if isinstance(self.finetune, GradualConfig | PhasesConfig):
            _check_phases(self.finetune, self.early_stopping, self.fit.validate_every, lengths)
        if self.early_stopping is not None:
            _check_early_stopping(self.early_stopping, self.fit)
        _check_rare_classes(self.fit, self.data)
        _check_cutout(self.augment, self.data)
        _check_features(self.finetune, self.augment, self.fit)
        if self.head is not None:
            _check_head(self.head, self.network, self.augment)
        if self.probe is not None:
            _check_probe(self.probe, self)

    @property
    def shows_two_views(self) -> bool:
        """Whether every image is shown in training as it is, or mirrored, and in no other way."""
        return not _varied(self.augment)

    @property
    def keeps_features(self) -> bool:
        """Whether what the frozen layers make of the training images is computed once and kept in memory."""
        frozen = isinstance(self.finetune, FrozenConfig) and self.finetune.features == "keep"
        return frozen or isinstance(self.finetune, UpperConfig)

    @property
    def selects(self) -> bool:
        """Whether validation chooses anything while training; half of it is then kept from that, to calibrate."""
        plateau = isinstance(self.schedule, PlateauConfig) and self.schedule.monitor != "train_acc"
        restores = isinstance(self.finetune, GradualConfig | PhasesConfig) and self.finetune.restore_best != "none"
        return plateau or restores or self.early_stopping is not None or self.fit.keep != "last"


def check_name(name: str) -> None:
    if not name or "/" in name or "\\" in name:
        raise ConfigError(f"the recipe's name is {shown(name)}; it must be a word for a folder, without slashes.")


def check_schedule(schedule: ScheduleConfig, fit: FitConfig, lengths: tuple[int, ...]) -> None:
    """Refuse a schedule that would not do in so many epochs what it says; each phase goes through it anew."""
    epochs = min(lengths)
    span = "--fit.epochs" if len(lengths) == 1 else "the shortest phase of --finetune"
    if isinstance(schedule, OneCycleConfig):
        if schedule.peak_epoch >= epochs:
            raise ConfigError(
                f"--schedule.peak-epoch ({schedule.peak_epoch:g}) must be shorter than {span} ({epochs});"
                " the learning rate would never come down."
            )
        return
    if schedule.warmup_epochs >= epochs:
        raise ConfigError(
            f"--schedule.warmup-epochs ({schedule.warmup_epochs:g}) must be shorter than {span}"
            f" ({epochs}); the learning rate would never come down."
        )
    match schedule:
        case StepConfig():
            _check_cuts("every-epochs", (schedule.every_epochs,), schedule.warmup_epochs, lengths)
        case MultiStepConfig():
            _check_cuts("epochs", schedule.epochs, schedule.warmup_epochs, lengths)
        case CyclicConfig():
            if schedule.period_epochs > epochs - schedule.warmup_epochs:
                raise ConfigError(
                    f"--schedule.period-epochs ({schedule.period_epochs:g}) is more than the"
                    f" {epochs - schedule.warmup_epochs:g} epochs that {span} and the warm-up leave; the learning"
                    " rate would never come back down."
                )
        case PlateauConfig():
            _check_patience("schedule.patience", schedule.patience, 2, schedule.monitor, fit, lengths)


def _check_cuts(name: str, cuts: tuple[int, ...], warmup: float, lengths: tuple[int, ...]) -> None:
    if cuts[-1] >= max(lengths):
        span = "--fit.epochs" if len(lengths) == 1 else "the longest phase of --finetune"
        raise ConfigError(f"--schedule.{name} {cuts[-1]} has no effect: it must be less than {span} ({max(lengths)}).")
    if cuts[0] <= warmup:
        raise ConfigError(
            f"--schedule.{name} {cuts[0]} cuts the rate before the warm-up ends (--schedule.warmup-epochs {warmup:g});"
            " choose a later epoch or a shorter warm-up."
        )


def _check_patience(
    flag: str, patience: int, more: int, monitor: str, fit: FitConfig, lengths: tuple[int, ...]
) -> None:
    """Refuse a patience that cannot run out before the last epoch, or that of the longest phase.

    Args:
        more: measurements until it has run out, beyond the patience: the first, which is the best so far, and the one
            that is not borne any more.
    """
    every = 1 if monitor == "train_acc" else fit.validate_every
    if every == 0:
        raise ConfigError(
            f"--{flag.partition('.')[0]} waits for {monitor}, but --fit.validate-every 0 measures it only after the last"
            " epoch; choose --fit.validate-every 1."
        )
    if (patience + more) * every >= max(lengths):
        epochs = max(lengths)
        span = f"--fit.epochs {epochs}" if len(lengths) == 1 else f"the longest phase of --finetune ({epochs} epochs)"
        raise ConfigError(
            f"--{flag} {patience} cannot run out within {span} with a measurement every"
            f" {f'{every} epochs' if every > 1 else 'epoch'}; choose less patience or more epochs."
        )


def check_averaging(
    averaging: AveragingConfig,
    schedule: ScheduleConfig,
    stopping: EarlyStoppingConfig | None,
    lengths: tuple[int, ...],
) -> None:
    epochs = sum(lengths)
    start = averaging.start * epochs
    if isinstance(averaging, EMAConfig):
        if epochs - start < 1:
            raise ConfigError(
                f"--averaging.start {averaging.start:g} of --fit.epochs {epochs} leaves less than an epoch to average; choose"
                " an earlier start."
            )
        return
    if isinstance(schedule, PlateauConfig):
        raise ConfigError(
            "--averaging.kind swa and --schedule.kind plateau both set the rate of the last epochs; choose another"
            " schedule, or --averaging.kind ema."
        )
    if stopping is not None:
        raise ConfigError(
            "--averaging.kind swa averages the last epochs, which --early-stopping would cut off; choose one of the two,"
            " or --averaging.kind ema."
        )
    if epochs - start < 2:
        raise ConfigError(
            f"--averaging.start {averaging.start:g} of --fit.epochs {epochs} leaves {epochs - start:g} epochs to average;"
            " two or more are needed: choose an earlier start, or more epochs."
        )
    if averaging.anneal_epochs >= epochs - start:
        raise ConfigError(
            f"--averaging.anneal-epochs ({averaging.anneal_epochs:g}) must be less than the {epochs - start:g} epochs after"
            " --averaging.start; the rate would never be reached."
        )
    peak = schedule.peak_epoch if isinstance(schedule, OneCycleConfig) else schedule.warmup_epochs
    peak += epochs - lengths[-1]
    if start < peak:
        which = "the schedule" if len(lengths) == 1 else "the schedule in the last phase of --finetune"
        raise ConfigError(
            f"--averaging.start {averaging.start:g} is epoch {start:g}, before the peak of {which} (epoch {peak:g});"
            " choose a later start."
        )


def _check_phases(
    finetune: GradualConfig | PhasesConfig,
    stopping: EarlyStoppingConfig | None,
    every: int,
    lengths: tuple[int, ...],
) -> None:
    if stopping is not None and len(lengths) > 1:
        raise ConfigError(
            f"--early-stopping would end the training before all phases of --finetune.kind {finetune.kind} have begun;"
            " leave it out (--fit.keep hands on the best weights, --finetune.restore-best begins a phase with them)."
        )
    if finetune.restore_best == "none":
        return
    ends = list(accumulate(lengths, initial=0))
    measured = [end // every - start // every if every else 0 for start, end in pairwise(ends)][:-1]
    if min(measured) < 1 or max(measured) < 2:
        raise ConfigError(
            f"--finetune.restore-best {finetune.restore_best} needs a validation in each phase before the last, and two or"
            f" more in one of them; with --fit.validate-every {every} they have {', '.join(map(str, measured))}: validate"
            " more often, or give the phases more epochs."
        )


def _check_early_stopping(stopping: EarlyStoppingConfig, fit: FitConfig) -> None:
    _check_patience("early-stopping.patience", stopping.patience, 1, stopping.monitor, fit, (fit.epochs,))
    if fit.keep != "last":
        raise ConfigError(
            f"--fit.keep {fit.keep} has no effect with --early-stopping, which hands on the weights that are"
            " best by its own monitor; leave --fit.keep out."
        )


def _check_rare_classes(fit: FitConfig, data: DataConfig) -> None:
    if fit.class_weights == "balanced" and data.sampling == "balanced":
        raise ConfigError(
            "--fit.class-weights balanced and --data.sampling balanced both make up for rare classes, together twice"
            " over; choose one."
        )


def _varied(augment: AugmentConfig) -> str:
    """The setting by which an image is shown in more than two ways; empty where there is none."""
    blocks = ("crop", "rotation", "policy", "color", "cutout", "mix", "scales")
    return next((name for name in blocks if getattr(augment, name)), "")


def _check_probe(probe: ProbeConfig, recipe: Recipe) -> None:
    weights = getattr(recipe.network, "weights", None)
    given = "--minutes" if probe.minutes is not None else "--probe"
    if weights is None and not isinstance(recipe.network, RunConfig):
        raise ConfigError(
            f"{given} needs a network that has learned already, and {recipe.network.kind} starts from nothing; add --backbone"
            " box, or take --recipe photos."
        )
    if recipe.head is not None:
        raise ConfigError(f"--head {recipe.head.kind} has no effect with a probe, whose head is linear; leave it out.")
    if recipe.fit.processes > 1:
        raise ConfigError("--fit.processes: a probe is solved by one process; leave the option out.")
    if isinstance(recipe.finetune, FrozenConfig):
        raise ConfigError(
            "--finetune frozen has no effect behind a probe, which is the best head of the frozen network; leave it out, or"
            " add --probe.kind none."
        )


def _check_features(finetune: FinetuneConfig | None, augment: AugmentConfig, fit: FitConfig) -> None:
    if isinstance(finetune, UpperConfig):
        varied = _varied(augment)
        if varied:
            raise ConfigError(
                f"--augment.{varied} has no effect with --finetune upper, which keeps the maps of an image as it is, and"
                " mirrored; leave one of the two out."
            )
        if fit.compile or fit.processes > 1:
            raise ConfigError(
                f"--fit.{'compile' if fit.compile else 'processes'} has no effect with --finetune upper; leave it out."
            )
        return
    if not isinstance(finetune, FrozenConfig) or finetune.features is None:
        return
    varied = _varied(augment)
    if varied:
        raise ConfigError(
            f"--finetune.features {finetune.features} has no effect with --augment.{varied}, which shows an image in ever new"
            " ways; leave one of the two out."
        )
    if fit.compile and finetune.features == "keep":
        raise ConfigError(
            "--fit.compile has no effect on frozen layers that compute once (--finetune.features keep); leave one of the two"
            " out."
        )


def _check_cutout(augment: AugmentConfig, data: DataConfig) -> None:
    size, cutout = data.size, augment.cutout
    if size is not None and cutout is not None and cutout.size > size:
        raise ConfigError(
            f"--augment.cutout.size ({cutout.size}) is larger than the images (--data.size {size});"
            " a hole must fit into the image."
        )


def _check_head(head: HeadConfig, network: NetworkConfig, augment: AugmentConfig) -> None:
    if head.layer is not None and not isinstance(network, RunConfig):  # of which only its folder tells what it is
        name = ":".join(filter(None, (network.kind, getattr(network, "name", None))))
        refuse_unknown_layer(head.layer, getattr(network, "layers", ()), name)
    if isinstance(head, GraphAttentionHeadConfig | SelfAttentionHeadConfig) and augment.scales:
        raise ConfigError(
            f"--augment.scales shows smaller images first, and --head {head.kind} reads one size only: it learns a"
            " position and weights for each patch of the map; add --augment.no-scales, or choose --head attention_pool."
        )
