"""The command line: a table of verbs. An error of ours becomes one line and status 2; only this room prints.

Nothing slow is imported until a verb has refused what it can refuse without it.
"""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sightline.config import ServeConfig, named_recipes, read_recipe, resolve
from sightline.config.resolving import merge, refuse_hopeless
from sightline.config.studies import named_studies
from sightline.errors import ConfigError, DataError, Interrupted, RunError, SightlineError
from sightline.flags import application, nest

__all__ = ["VERBS", "main"]

REFUSED = 2  # status of a refusal
STOPPED = 130  # status after Ctrl-C, as shells have it


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns its status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        application(VERBS, arguments)(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except SightlineError as error:
        return _refuse(str(error))
    except cyclopts.CycloptsError as error:
        return _refuse(" ".join(str(error).split()))
    except Interrupted as stopped:
        from sightline.runs import run_to_help

        if run_to_help() is not None:  # the process that started this one says it
            return STOPPED
        print(f"sightline: stopped; continue with: {stopped.command}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("sightline: stopped.", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


# ── verbs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def train(
    data: str | None = None,
    /,
    *,
    recipe: str = "auto",
    config: Path | None = None,
    run: Path | None = None,
    seed: int | None = None,
    evaluate: Literal["test", "validation", "none"] | None = None,
    deterministic: Annotated[bool, Parameter(negative=())] = False,
    resume: Annotated[bool, Parameter(negative=())] = False,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    **settings: Any,
) -> None:
    """Train a classifier on an image set, and measure it.

    Parameters
    ----------
    data
        A folder of class folders, an archive of one, a manifest (.csv, .parquet), or a name: digits, cifar10, cifar100,
        mnist, fashion-mnist, hf:OWNER/NAME.
    recipe
        A recipe's name (see sightline recipes), or auto to choose by the images.
    config
        A YAML file of settings over the recipe, such as the recipe.yaml of a run.
    run
        Folder to make; runs/<data>-<recipe>-<n> unless named.
    seed
        Seed of everything random in the training; 42 unless the recipe says otherwise.
    evaluate
        What the finished classifier is measured on; test unless the recipe says otherwise.
    deterministic
        Refuse every operation whose result may differ from run to run.
    resume
        Continue --run, or the newest unfinished run of the same data and settings.
    dry_run
        Describe the training and stop before the first step.
    """
    from sightline.runs import refuse_existing

    wanted = [("fit", "seed", seed), ("fit", "deterministic", deterministic or None), ("evaluation", "on", evaluate)]
    named, flags = _layers(data, recipe, config, settings, wanted, begun=resume)
    if run is not None and not resume:
        refuse_existing(run)
    from sightline.training import train as work

    finished = work(
        data,
        recipe=named or "auto",
        settings=flags,
        run=run,
        resume=resume,
        dry_run=dry_run,
        console=Console(),
    )
    if finished is not None:
        print(finished)


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
    from sightline.runs import refuse_to_overwrite

    if config is not None and recipe == "auto" and "name" in read_recipe(config):  # a recipe by itself, such as a run's
        recipe, config = str(config), None
    _, flags = _layers(data, recipe, config, settings)
    if out is not None:
        refuse_to_overwrite(out)
    from sightline.planning import plan as work

    text = work(data, recipe=recipe, settings=flags, out=out, console=Console(stderr=True))
    print(text.rstrip() if out is None else out)


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
    """Find the learning rate of a training by a range test, and check it by two short trainings.

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
    from sightline.runs import refuse_filled

    test = RangeTestConfig(start=start, end=end, steps=steps, spacing=spacing)
    named, flags = _layers(data, recipe, config, settings)
    if named:
        test.rates(resolve(named, flags).optimizer.kind)
    if out is not None:
        refuse_filled(out)
    from sightline.finding import find_rate as work

    work(data, recipe=named or "auto", settings=flags, test=test, out=out, console=Console())
    if out is not None:
        print(out)


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
    from sightline.runs import refuse_filled

    search = BatchSearchConfig(how=how, memory_limit=memory_limit)
    named, flags = _layers(data, recipe, config, settings)
    if out is not None:
        refuse_filled(out)
    from sightline.finding import find_batch as work

    work(data, recipe=named or "auto", settings=flags, search=search, out=out, console=Console())
    if out is not None:
        print(out)


def evaluate(
    run: str,
    data: str | None = None,
    /,
    *,
    out: Path | None = None,
    unknown: Annotated[bool, Parameter(negative=())] = False,
    trust_code: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Measure a finished classifier on labelled images.

    Parameters
    ----------
    run
        Folder of a finished run.
    data
        An image set: its test split where it brings one, else every image. Without it the run's own test split is
        read again, and the reading is counted.
    out
        Folder to write evaluation.json and predictions.csv to.
    unknown
        DATA shows other things than the classes: measure how often they are called none of these, and note it in the run.
    trust_code
        Run the code of the repository that a network of torch.hub is built by.
    """
    from sightline.images.lookup import find_source
    from sightline.runs import read_model_of_finished

    if unknown and (data is None or out is not None):
        raise ConfigError(
            "--unknown measures an image set of other things and writes into the run: name the set, and leave --out away."
        )
    read_model_of_finished(run)
    if data is not None:
        find_source(data)
    from sightline.describing import Progress, show_measures
    from sightline.evaluating import evaluate as work
    from sightline.evaluating import evaluate_unknown

    console = Console()
    if unknown and data is not None:
        with Progress(console, "Evaluating") as progress:
            share = evaluate_unknown(run, data, trust_code=trust_code, progress=progress)
        print(f"{share['rate']:.1%} of {share['n']:,} images are called none of the classes")
        return
    with Progress(console, "Evaluating") as progress:
        found = work(run, data, out=out, trust_code=trust_code, progress=progress)
    show_measures(console, found)


def report(
    run: str, /, *, out: Path | None = None, trust_code: Annotated[bool, Parameter(negative=())] = False
) -> None:
    """Write a finished run's report: how good, on what, where wrong, how sure, how to repeat it.

    Parameters
    ----------
    run
        Folder of a finished run.
    out
        File to write (.html), one page that holds all it shows; report.html in the run unless named.
    trust_code
        Run the code of the repository that a network of torch.hub is built by, to explain its mistakes.
    """
    from sightline.runs import read_model_of_finished

    read_model_of_finished(run)
    from sightline.describing import Progress
    from sightline.reporting import report as work

    with Progress(Console(stderr=True), "Opening the images") as progress:
        page = work(run, out=out, trust_code=trust_code, progress=progress)
    print(page)


def predict(
    run: str | None = None,
    /,
    *images: str,
    out: Path | None = None,
    views: Literal["one", "flip", "six"] | None = None,
    sets: float | None = None,
    trust_code: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Classify images.

    Parameters
    ----------
    run
        Folder of a finished run, or its model.safetensors alone. Where images stand in its place the classifier in the box
        answers, which tells the ten classes of CIFAR-10 apart.
    images
        Files, folders (searched to the bottom) and archives.
    out
        CSV file to write; without it one image gets a readable line, and several are printed as CSV.
    views
        Views of each image to average; those of the recipe unless named. One view is fastest.
    sets
        Also give for each image the classes among which the true one is, in this share of all images: 0.8 to 0.99. A set
        may be empty where the classifier is right more often than that.
    trust_code
        Run the code of the repository that a network of torch.hub is built by.
    """
    from sightline.images.lookup import plain_files
    from sightline.runs import names_a_run, read_model_of_finished

    if run is not None and os.path.exists(run) and not names_a_run(run):
        images, run = (run, *images), None  # images stand in its place
    if not images:
        if run is not None and not os.path.exists(run):
            raise DataError(f"no run, image, folder or archive at {run!r}; check the spelling of the path.")
        raise DataError("no images were named; give files, folders or archives.")
    for image in images:
        plain_files(image)
        if run is None and names_a_run(image):
            raise RunError(f"{image} is a run; name it first: sightline predict {image} IMAGES...")
    if run is not None and not run.endswith(".safetensors"):
        read_model_of_finished(run)
    from sightline.describing import Progress
    from sightline.predicting import about_box, csv_header, csv_rows
    from sightline.predicting import predict as work
    from sightline.runs import write_rows

    console = Console(stderr=True)
    with Progress(console, "Predicting") as progress:
        found = work(run, images, out=out, views=views, sets=sets, trust_code=trust_code, progress=progress)
    _name_unreadable(found.unreadable)
    if run is None:
        print(f"sightline: {about_box()}", file=sys.stderr)
    if out is not None:
        print(f"{len(found.files):,} predictions in {out}")
    elif len(found.files) == 1:
        (answer,) = found.predictions
        ranked = ", ".join(f"{label} {chance:.1%}" for label, chance in list(answer.probabilities.items())[:5])
        print(f"{found.files[0]}: {'none of these; the nearest: ' if answer.unknown else ''}{ranked}")
        if answer.within is not None:
            print(f"  set of {sets:.0%}: {', '.join(answer.within) or 'empty'}")
    else:
        write_rows(sys.stdout, csv_header(sets), csv_rows(found.files, found.predictions))


def serve(
    run: str | None = None,
    /,
    *,
    host: str = ServeConfig.host,
    port: int = ServeConfig.port,
    token: str | None = None,
    max_megabytes: float = ServeConfig.max_megabytes,
    max_megapixels: float = ServeConfig.max_megapixels,
    max_images: int = ServeConfig.max_images,
    trust_code: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Serve a finished classifier: a page to try it in a browser, and a service to call from programs.

    Parameters
    ----------
    run
        Folder of a finished run, or its model.safetensors alone; without it the classifier in the box, which tells the ten
        classes of CIFAR-10 apart.
    host
        Address to listen at; 0.0.0.0 answers other machines too.
    port
        Port to listen at; 0 takes a free one.
    token
        What a caller must know: in the header "Authorization: Bearer TOKEN" of the service, once as ?token=TOKEN in a
        browser. At least 8 letters.
    max_megabytes
        Of a request, at most, in MB.
    max_megapixels
        Of an image, at most.
    max_images
        Of a request, at most.
    trust_code
        Run the code of the repository that a network of torch.hub is built by.
    """
    from sightline.extras import require
    from sightline.runs import read_model_of_finished

    settings = ServeConfig(
        host=host,
        port=port,
        token=token,
        max_megabytes=max_megabytes,
        max_megapixels=max_megapixels,
        max_images=max_images,
    )
    require("gradio", "app", "sightline serve")
    if run is not None and not run.endswith(".safetensors"):
        read_model_of_finished(run)
    from sightline.serving import serve as work

    def announce(address: str, about: str) -> None:
        print(about)
        print(f"{address}  (the service: {address.partition('?')[0]}api; Ctrl-C ends it)", flush=True)

    work(run, settings=settings, trust_code=trust_code, announce=announce)


def explain(
    run: str,
    /,
    *images: str,
    method: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    target: str | None = None,
    layer: str | None = None,
    steps: int | None = None,
    samples: int | None = None,
    noise: float | None = None,
    window: int | None = None,
    stride: int | None = None,
    out: Path,
    arrays: Annotated[bool, Parameter(negative=())] = False,
    faithfulness: bool = True,
    trust_code: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Show which pixels spoke for a class: a sheet for each image.

    Parameters
    ----------
    run
        Folder of a finished run, or its model.safetensors alone.
    images
        Files, folders (searched to the bottom) and archives.
    method
        One or several of saliency, integrated_gradients, integrated_gradients_smoothgrad, deeplift, occlusion,
        gradient_shap, grad_cam, attention (of an attention head); or all, for those that the network is made for;
        grad_cam unless named. All but grad_cam and attention need captum.
    target
        The class to ask about; the most probable of each image unless named.
    layer
        Layer whose map grad_cam shows; the deepest of at least 7×7 positions unless named.
    steps
        Points between the mean image and the image, for the integrated gradients; unless named 64, and more where they do
        not add up to within 1 %; with smoothgrad 16.
    samples
        Noisy copies of an image: 8 for integrated_gradients_smoothgrad, 64 for gradient_shap unless named.
    noise
        Their noise, in standard deviations of the pixels: 0.15 and 0.1 unless named.
    window
        Side of the square that occlusion covers, in pixels; an eighth of the shorter side unless named.
    stride
        Pixels from one square to the next; half of the window unless named.
    out
        Folder to make, with the sheets (PNG) and explanations.csv.
    arrays
        Also write the maps of each image (.npz).
    faithfulness
        Measure deletion and insertion: how the probability falls and rises in the order of each map, and of a random one.
    trust_code
        Run the code of the repository that a network of torch.hub is built by.
    """
    from sightline.config import AttributionConfig, methods_of, refuse_unknown_class
    from sightline.extras import refuse_missing_captum
    from sightline.images.lookup import plain_files
    from sightline.runs import read_model_of_finished, refuse_filled

    if not images:
        raise DataError("no images were named; give files, folders or archives.")
    numbers = {"steps": steps, "samples": samples, "noise": noise, "window": window, "stride": stride}
    settings = AttributionConfig(layer=layer, **numbers)  # type: ignore[arg-type]
    method = ["grad_cam"] if method is None else method
    settings.refuse_unused(methods_of(method))
    refuse_missing_captum(methods_of(method))
    for image in images:
        plain_files(image)
    refuse_filled(out)
    if not run.endswith(".safetensors"):
        model = read_model_of_finished(run)
        if target is not None:
            refuse_unknown_class(target, model["classes"])
    from sightline.describing import Progress
    from sightline.explaining import explain as work
    from sightline.explaining import summarize_explanations
    from sightline.pages import print_table

    with Progress(Console(stderr=True), "Explaining") as progress:
        found = work(
            run,
            images,
            out=out,
            methods=method,
            target=target,
            settings={"layer": layer, **numbers},
            arrays=arrays,
            faithfulness=faithfulness,
            trust_code=trust_code,
            progress=progress,
        )
    _name_unreadable(found.unreadable)
    for name, reason in found.left_out.items():
        print(f"sightline: left out {name}: {reason}", file=sys.stderr)
    print_table(Console(), "", summarize_explanations(found.images))
    print(f"{len(found.files):,} sheet{'s' if len(found.files) > 1 else ''} and explanations.csv in {out}")


def encode(
    run: str,
    /,
    *images: str,
    out: Path,
    layer: str = "features",
    trust_code: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write what a classifier makes of images, one vector an image, for use elsewhere.

    Parameters
    ----------
    run
        Folder of a finished run, or its model.safetensors alone.
    images
        Files, folders and archives; labels are kept of those that are image sets with classes.
    out
        File to write (.npz): features, files, layer, fingerprint, and labels and classes where all images have them.
    layer
        Whose output to take: features, which the last layer reads, or a layer by its name; maps are averaged.
    trust_code
        Run the code of the repository that a network of torch.hub is built by.
    """
    from sightline.runs import read_model_of_finished

    if not images:
        raise DataError("no images were named; give files, folders, archives or image sets.")
    if out.suffix != ".npz":
        raise ConfigError(f"--out {out} must end in .npz, the format of the features.")
    if not run.endswith(".safetensors"):
        read_model_of_finished(run)
    from sightline.describing import Progress
    from sightline.encoding import encode as work

    with Progress(Console(stderr=True), "Encoding") as progress:
        found = work(run, images, out=out, layer=layer, trust_code=trust_code, progress=progress)
    _name_unreadable(found.unreadable)
    labelled = f", of {len(found.classes)} classes" if found.classes is not None else ""
    print(f"{len(found.files):,} × {found.features.shape[1]:,} features{labelled} in {out}")


def check(
    data: str,
    /,
    *,
    labels: str | None = None,
    out: Path | None = None,
    trust_code: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Look an image set over: broken and odd files, copies, images shared by train and test, suspected label errors.

    Parameters
    ----------
    data
        An image set, as for sightline train.
    labels
        Folder of a finished run whose features judge the labels (confident learning, by cleanlab): heads on them are
        asked about images that they did not see. A run that was trained on these very images has learnt some of their
        wrong labels; it still finds most.
    out
        Folder to write to: check.html, findings.csv, and exclude.csv for sightline train --data.exclude;
        checks/<data>-<n> unless named.
    trust_code
        Run the code of the repository that a network of torch.hub is built by.
    """
    from sightline.extras import require
    from sightline.images.lookup import find_source
    from sightline.runs import read_model_of_finished, refuse_filled

    find_source(data)
    if labels is not None:
        require("cleanlab", "check", "--labels")
        if not labels.endswith(".safetensors"):
            read_model_of_finished(labels)
    if out is not None:
        refuse_filled(out)
    from sightline.checking import check as work
    from sightline.checking.ailments import KINDS
    from sightline.describing import Progress, show_check

    with Progress(Console(stderr=True), "Checking") as progress:
        found = work(data, labels=labels, out=out, trust_code=trust_code, progress=progress)
    show_check(Console(), {KINDS[kind].title: n for kind, n in found.counts.items()}, len(found.excluded))
    print(found.folder)


def compare(
    *what: str,
    data: str | None = None,
    seeds: int | None = None,
    fraction: float | None = None,
    out: Path | None = None,
) -> None:
    """Compare finished runs, or the recipes of a study, with each other: tables, curves and a page.

    Parameters
    ----------
    what
        Folders of finished runs; or one study, which is trained first: a name (see sightline studies), a YAML file, or
        the folder of one that has begun, to continue it.
    data
        The image set of a study, in place of its own.
    seeds
        Number of seeds of a study, counted from 0, in place of its own.
    fraction
        Share of the training images that a study uses, in place of its own.
    out
        Folder to write to; studies/<study>-<data>[-<fraction>] unless named, or studies/runs-<n>.
    """
    from sightline.comparing import compare as work

    print(work(*what, data=data, seeds=seeds, fraction=fraction, out=out, console=Console()))


def studies() -> None:
    """List the studies: what each asks."""
    _list_named("study", "what it asks", named_studies())


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
    from sightline.extras import require

    require("optuna", "tune", "sightline tune")
    begun = begun_study(study, resume)
    named, flags = _layers(data, recipe, config, settings, begun=begun is not None)
    how = {"trials": trials, "judge": judge, "pruner": pruner, "seed": seed}
    written = None if space is None else read_space(space)
    if begun is None:
        if written is None:
            raise ConfigError("no space was named; give a YAML file of the settings that vary with --space.")
        search = TuneConfig(**{name: value for name, value in how.items() if value is not None})  # type: ignore[arg-type]
        refuse_hopeless_space(written, named, flags, search)
    from sightline.tuning import tune as work

    print(
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
            console=Console(),
        )
    )


def recipes() -> None:
    """List the recipes: what each is for, and what it reached."""
    automatic = {"auto": "about: Chooses one of these by the size and number of the images, and says which."}
    _list_named("recipe", "what it is for, and what it reached", automatic | named_recipes())


def runs(folder: Path = Path("runs"), /) -> None:
    """List the runs in a folder, newest last.

    Parameters
    ----------
    folder
        Where to look.
    """
    from sightline.runs import PRUNED, list_runs

    found = list_runs(folder)
    if not found:
        print(f"no runs in {folder}; make one with `sightline train DATA`.")
        return
    table = Table()
    for column in ("run", "state", "data", "recipe", "accuracy", "n"):
        table.add_column(column, overflow="fold")
    for run in found:
        accuracy = "" if run.accuracy is None else f"{run.accuracy:.4f}"
        pruned = (run.folder / PRUNED).exists()
        state = "finished" if run.finished else "ended early" if pruned else "unfinished"
        table.add_row(str(run.folder), state, run.data, run.recipe, accuracy, "" if run.n is None else f"{run.n:,}")
    Console().print(table)


def cache(*, clear: Annotated[bool, Parameter(negative=())] = False) -> None:
    """List the decoded image sets in the cache, or delete them; the sets themselves and downloads/ are never touched.

    Parameters
    ----------
    clear
        Delete every decoded set.
    """
    from sightline.images import cache as decoded

    if clear:
        print(f"freed {decoded.clear() / 1e6:,.0f} MB in {decoded.cache_folder()}")
        return
    table = Table(title=str(decoded.cache_folder()), title_justify="left")
    for column in ("image set", "images", "MB", "from"):
        table.add_column(column, overflow="fold")
    for row in decoded.cached():
        table.add_row(row["name"], f"{row['images']:,}", f"{row['bytes'] / 1e6:,.1f}", row["location"])
    Console().print(table)


def environment() -> None:
    """Describe this machine and what is installed, for a bug report."""
    from rich import box

    from sightline.diagnosing import environment as work

    table = Table(box=box.MARKDOWN)  # pasted into a report, it is a table there too
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    for name, found in work().items():
        table.add_row(name, escape(found))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "plan": plan,
    "find rate": find_rate,
    "find batch": find_batch,
    "evaluate": evaluate,
    "report": report,
    "predict": predict,
    "explain": explain,
    "encode": encode,
    "serve": serve,
    "check": check,
    "compare": compare,
    "studies": studies,
    "tune": tune,
    "recipes": recipes,
    "runs": runs,
    "cache": cache,
    "environment": environment,
}


def _list_named(what: str, about: str, texts: dict[str, str]) -> None:
    """Print the names of YAML texts, with what each says of itself."""
    import yaml

    table = Table(title_justify="left")
    table.add_column(what)
    table.add_column(about)
    for name, text in texts.items():
        table.add_row(name, escape(yaml.safe_load(text)["about"]))
    Console().print(table)


def _layers(
    data: str | None,
    recipe: str,
    config: Path | None,
    settings: dict[str, Any],
    more: Iterable[tuple[str, str, Any]] = (),
    *,
    begun: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe of a training, empty where it is auto, and the settings over it; what is refused before torch is loaded.

    Args:
        more: (block, name, value) of flags by another name; None is none.
        begun: a run that is continued may name the image set.
    """
    from sightline.extras import refuse_missing_trackers
    from sightline.images.excluding import read_excluded
    from sightline.images.lookup import find_source

    if data is not None:
        find_source(data)
    elif recipe == "auto" and config is None and not begun:
        raise DataError("no image set was named; give a folder, an archive, a manifest, or a name such as digits.")
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
        resolve(named, flags)
    else:
        refuse_hopeless(flags)
    _refuse_network(merge(named, flags).get("network") or {})
    exclude = (merge(named, flags).get("data") or {}).get("exclude")
    if exclude is not None:
        read_excluded(exclude)
    refuse_missing_trackers(named, flags)
    return named, flags


def _refuse_network(network: dict[str, Any]) -> None:
    """Refuse before torch is loaded what a network lacks: its library, or the run that it comes from."""
    from sightline.extras import require
    from sightline.runs import read_model_of_finished

    if network.get("kind") == "timm":
        require("timm", "timm", f"the network timm:{network.get('name')}")
    if network.get("kind") == "run" and network.get("folder"):
        read_model_of_finished(Path(network["folder"]).expanduser())


def _name_unreadable(unreadable: list[tuple[str, str]]) -> None:
    for file, reason in unreadable:
        print(f"sightline: left out {file}: {reason}", file=sys.stderr)
    if unreadable:
        print(f"sightline: {len(unreadable)} unreadable files were left out.", file=sys.stderr)


def _refuse(sentence: str) -> int:
    print(f"sightline: {sentence}", file=sys.stderr)
    return REFUSED
