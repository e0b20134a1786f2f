"""The verbs that train: each refuses what it can before anything slow is loaded."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from sightline.cli.flags import nest
from sightline.config import read_recipe, resolve, resolve_any
from sightline.config.resolving import merge, refuse_hopeless
from sightline.display.terminal import screen, show
from sightline.errors import ConfigError, DataError

__all__ = ["find_batch", "find_rate", "plan", "train", "tune"]


def train(
    data: str | None = None,
    /,
    *,
    recipe: str = "auto",
    config: Path | None = None,
    run: Path | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    evaluate: Literal["test", "validation", "none"] | None = None,
    deterministic: Annotated[bool, Parameter(negative=())] = False,
    resume: Annotated[bool, Parameter(negative=())] = False,
    restart: Annotated[bool, Parameter(negative=())] = False,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    **settings: Any,
) -> None:
    """Train a classifier on an image set, and measure it; or a generator of such images (--recipe ddpm).

    Parameters
    ----------
    data
        A folder of class folders, an archive of one, a manifest (.csv, .tsv, .jsonl, .parquet), or a name: groceries, digits, cifar10,
        cifar100, mnist, fashion-mnist, hf:OWNER/NAME; groceries, the embedded photographs, unless named.
    recipe
        A recipe's name (see sightline recipes), or auto to choose by the images.
    config
        A YAML file of settings over the recipe, such as the recipe.yaml of a run.
    run
        Folder to make; runs/<data>-<recipe>-<n> unless named.
    minutes
        For the recipe photos: minutes for everything, from the command until the run is finished. Without them
        fine-tuning takes at most twice as long as the features, and at most ten minutes.
    seed
        Seed of everything random in the training; 42 unless the recipe says otherwise.
    evaluate
        What the finished classifier is measured on; test unless the recipe says otherwise.
    deterministic
        Refuse every operation whose result may differ from run to run.
    resume
        Continue --run, or the newest unfinished run of the same data and settings.
    restart
        With --resume: begin the run again at its first epoch, and delete its checkpoints, such as those of which none can
        be read.
    dry_run
        Describe the training and stop before the first step.
    """
    from sightline.runs.folder import refuse_existing

    wanted = [
        ("fit", "seed", seed),
        ("fit", "deterministic", deterministic or None),
        ("probe", "minutes", minutes),
        ("evaluation", "on", evaluate),
    ]
    named, flags = _layers(data, recipe, config, settings, wanted, unnamed=True, generators=True)
    if run is not None and not resume:
        refuse_existing(run)
    if restart and not resume:
        raise ConfigError("--restart begins a run again that is resumed, and has no effect without --resume.")
    from sightline.training.train import train as work

    finished = work(
        data,
        recipe=named or "auto",
        settings=flags,
        run=run,
        resume=resume,
        restart=restart,
        dry_run=dry_run,
        console=screen(),
    )
    if finished is not None:
        show(str(finished))


def plan(
    data: str | None = None,
    /,
    *,
    recipe: str = "auto",
    config: Path | None = None,
    out: Path | None = None,
    **settings: Any,
) -> None:
    """Write out which layers of a network learn in which epochs, as YAML to edit and to train with.

    Parameters
    ----------
    data
        An image set, as for sightline train; so are the recipe, the file and the settings of the training.
    recipe
        A recipe's name, or auto to choose by the images.
    config
        A YAML file of settings over the recipe.
    out
        File to write (.yaml), for sightline train --config; without it the schedule is printed.
    """
    from sightline.runs.folder import refuse_to_overwrite

    if config is not None and recipe == "auto" and "name" in read_recipe(config):  # a recipe by itself, such as a run's
        recipe, config = str(config), None
    _, flags = _layers(data, recipe, config, settings)
    if out is not None:
        refuse_to_overwrite(out)
    from sightline.training.plan import plan as work

    text = work(data, recipe=recipe, settings=flags, out=out, console=screen(error=True))
    show(text.rstrip() if out is None else str(out), lines=True)


def find_rate(
    data: str | None = None,
    /,
    *,
    recipe: str = "auto",
    config: Path | None = None,
    start: float | None = None,
    end: float | None = None,
    steps: int = 200,
    spacing: Literal["exponential", "linear"] = "exponential",
    out: Path | None = None,
    **settings: Any,
) -> None:
    """Find the learning rate of a training by a range test, and check it by short trainings.

    Parameters
    ----------
    data
        An image set, as for sightline train; so are the recipe, the file and the settings of the training.
    recipe
        A recipe's name, or auto to choose by the images.
    config
        A YAML file of settings over the recipe.
    start
        Rate of the first step; 1e-4 for muon, 1e-5 for sgd and adagrad, 1e-6 for the others unless named.
    end
        Rate of the last step, 10 unless named; the test stops earlier where the loss has grown.
    steps
        Optimizer steps from the first rate to the last.
    spacing
        Whether each rate is the one before times a factor, or plus a number.
    out
        Folder to make: range.png, range.csv, found.json, and settings.yaml for sightline train --config.
    """
    from sightline.config import RangeTestConfig
    from sightline.runs.folder import refuse_filled

    test = RangeTestConfig(start=start, end=end, steps=steps, spacing=spacing)
    named, flags = _layers(data, recipe, config, settings)
    if named:
        test.rates(resolve(named, flags).optimizer.kind)
    if out is not None:
        refuse_filled(out)
    from sightline.training.find import find_rate as work

    work(data, recipe=named or "auto", settings=flags, test=test, out=out, console=screen())
    if out is not None:
        show(str(out))


def find_batch(
    data: str | None = None,
    /,
    *,
    recipe: str = "auto",
    config: Path | None = None,
    how: Literal["power", "binary"] = "power",
    memory_limit: float | None = None,
    out: Path | None = None,
    **settings: Any,
) -> None:
    """Find how large a batch of a training fits into memory, and which size is fastest.

    Parameters
    ----------
    data
        An image set, as for sightline train; so are the recipe, the file and the settings of the training.
    recipe
        A recipe's name, or auto to choose by the images.
    config
        A YAML file of settings over the recipe.
    how
        Double the batch while it fits; or then also halve the distance between what fits and what does not.
    memory_limit
        GB that the training may hold; unless named what is held before and four fifths of what is free, on a GPU all.
    out
        Folder to make: sizes.csv, found.json, and settings.yaml for sightline train --config.
    """
    from sightline.config import BatchSearchConfig
    from sightline.runs.folder import refuse_filled

    search = BatchSearchConfig(how=how, memory_limit=memory_limit)
    named, flags = _layers(data, recipe, config, settings)
    if out is not None:
        refuse_filled(out)
    from sightline.training.find import find_batch as work

    work(data, recipe=named or "auto", settings=flags, search=search, out=out, console=screen())
    if out is not None:
        show(str(out))


def tune(
    data: str | None = None,
    /,
    *,
    space: Path | None = None,
    recipe: str = "auto",
    config: Path | None = None,
    study: Path | None = None,
    trials: int | None = None,
    judge: Literal["val_acc", "val_loss"] | None = None,
    pruner: Literal["median", "halving", "hyperband", "none"] | None = None,
    seed: int | None = None,
    workers: int = 1,
    resume: Annotated[bool, Parameter(negative=())] = False,
    **settings: Any,
) -> None:
    """Search a space of settings for the recipe with the best validation (Optuna).

    Parameters
    ----------
    data
        An image set, as train has it. No trial reads its test split.
    space
        A YAML file of the settings that vary, each in its block with how it is drawn: choices, as in augment: {flip:
        [none, random]}; a range, as in optimizer: {learning_rate: {low: 0.001, high: 1, log: true}}, or with step:
        0.1; blocks, as in optimizer: [sgd, {kind: adamw, weight_decay: [0, 0.01]}]. docs/names.md has all of it.
    recipe
        What is tuned: a recipe's name, or auto to choose by the images.
    config
        A YAML file of settings over the recipe, such as the recipe.yaml of a run.
    study
        Folder to make, with best.yaml, trials.csv and a run for each trial; tunings/<data>-<recipe>-<n> unless named.
    trials
        Trials in all, those included that end early or fail; 20, or as many as the space has.
    judge
        What is best: the highest val_acc, or the lowest val_loss. The best of many is so by luck, too: expect less on
        other images.
    pruner
        Which trials end early, by their validation so far: median (those worse than half of the others were by then),
        halving, hyperband, or none; median unless named, where trials are validated before they end.
    seed
        Seed of the drawing, 42 unless named; all trials are trained with --fit.seed.
    workers
        Processes that train trials side by side.
    resume
        Continue --study as it was begun; only --trials and --workers may be others.
    """
    from sightline.config.space_files import read_space
    from sightline.config.tuning import TuneConfig, begun_study, refuse_hopeless_space
    from sightline.machine.extras import require

    require("optuna", "tune", "sightline tune")
    begun = begun_study(study, resume)
    named, flags = _layers(data, recipe, config, settings, unnamed=begun is not None)
    how = {"trials": trials, "judge": judge, "pruner": pruner, "seed": seed}
    written = None if space is None else read_space(space)
    if begun is None:
        if written is None:
            raise ConfigError("no space was named; give a YAML file of the settings that vary with --space.")
        search = TuneConfig(**{name: value for name, value in how.items() if value is not None})  # type: ignore[arg-type]
        refuse_hopeless_space(written, named, flags, search)
    from sightline.studies.tune import tune as work

    show(
        str(
            work(
                data,
                space=written,
                recipe=named or "auto",
                settings=flags,
                study=study,
                resume=resume,
                trials=trials,
                judge=judge,
                pruner=pruner,
                seed=seed,
                workers=workers,
                console=screen(),
            )
        )
    )


def _layers(
    data: str | None,
    recipe: str,
    config: Path | None,
    settings: dict[str, Any],
    more: Iterable[tuple[str, str, Any]] = (),
    *,
    unnamed: bool = False,
    generators: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe of a training, empty where it is auto, and the settings over it; what is refused before torch is loaded.

    Args:
        more: (block, name, value) of flags by another name; None is none.
        unnamed: whether no image set need be named: train has one of its own, and a run that is continued names one.
        generators: whether the recipe may be of one.
    """
    from sightline.data.excluding import read_excluded
    from sightline.data.seen import read_kept
    from sightline.data.sources.find_source import find_source
    from sightline.data.synthetic import find_generated

    if data is not None:
        find_source(data)
    elif recipe == "auto" and config is None and not unnamed:
        raise DataError("no image set was named; give a folder, an archive, a manifest, or a name such as groceries.")
    named = {} if recipe == "auto" else read_recipe(recipe)
    extra = {} if config is None else read_recipe(config)
    if not named and "name" in extra:  # a recipe by itself, such as a run's
        named, extra = extra, {}
    flags = nest(settings)
    for block, name, value in more:
        if value is not None:
            flags.setdefault(block, {})[name] = value
    flags = merge(extra, flags)
    if named:
        (resolve_any if generators else resolve)(named, flags)
    else:
        refuse_hopeless(flags)
    _refuse_network(merge(named, flags).get("network") or {})
    wanted = merge(named, flags).get("data") or {}
    if data is not None and wanted.get("classes") is not None:
        find_source(data, wanted["classes"])
    if wanted.get("exclude") is not None:
        read_excluded(wanted["exclude"])
    if wanted.get("keep_split") is not None:
        read_kept(wanted["keep_split"])
    if wanted.get("synthetic") is not None:
        find_generated(wanted["synthetic"])
    return named, flags


def _refuse_network(network: dict[str, Any]) -> None:
    """Refuse before torch is loaded what a network lacks: the package of its weights, or the run that it comes from."""
    from sightline.config.backbones import PACKAGE
    from sightline.machine.extras import packaged_weights
    from sightline.runs.folder import read_model_of_finished

    if network.get("kind") == "timm" and network.get("weights") == PACKAGE:
        packaged_weights(network["name"])
    if network.get("kind") == "run" and network.get("folder"):
        read_model_of_finished(Path(network["folder"]).expanduser())
