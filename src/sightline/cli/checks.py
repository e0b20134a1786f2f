"""The verbs that look: at a classifier, at an image set, at runs beside each other."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from sightline.display.terminal import screen, show
from sightline.errors import ConfigError

__all__ = ["check", "compare", "evaluate", "report"]


def evaluate(
    run: str,
    data: str | None = None,
    /,
    *,
    out: Path | None = None,
    unknown: Annotated[bool, Parameter(negative=())] = False,
    generated: Annotated[bool, Parameter(negative=())] = False,
    fid: Annotated[bool, Parameter(negative=())] = False,
    trust_code: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Measure a finished classifier on labeled images.

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
    generated
        DATA was made by a generator: also measure how near its images are to those that RUN was trained on, in RUN's own
        features, with as many of each.
    fid
        With --generated: also the standard FID, which compares with papers: the distance in the features of their Inception
        network (96 MB, downloaded once), of all images of DATA and all that RUN was trained on. Papers take 50,000 of each.
        Without a GPU that is slow: a few images a second.
    trust_code
        Run the code of the repository that a network of torch.hub is built by.
    """
    from sightline.data.sources.find_source import find_source
    from sightline.evaluation.inception import refuse_missing
    from sightline.runs.folder import read_model_of_finished

    if unknown and (data is None or out is not None):
        raise ConfigError(
            "--unknown measures an image set of other things and writes into the run: name the set, and leave --out away."
        )
    if generated and (data is None or unknown):
        raise ConfigError("--generated measures a set of generated images: name the set, and leave --unknown away.")
    if fid and not generated:
        raise ConfigError("--fid measures generated images: say --generated as well.")
    read_model_of_finished(run)
    if data is not None:
        find_source(data)
    if fid:
        refuse_missing()
    from sightline.display.waiting import PATIENCE, Progress
    from sightline.evaluation.evaluate import evaluate as work
    from sightline.evaluation.evaluate import evaluate_unknown
    from sightline.training.summary import about_fidelity, about_standard_fid, show_measures

    waiting = screen(error=True)  # what stdout gets is the result alone
    if unknown and data is not None:
        with Progress(waiting, "Evaluating", patience=PATIENCE) as progress:
            share = evaluate_unknown(run, data, trust_code=trust_code, progress=progress)
        show(f"{share['rate']:.1%} of {share['n']:,} images are called none of the classes")
        return
    with Progress(waiting, "Evaluating", patience=PATIENCE) as progress:
        found = work(run, data, out=out, generated=generated, fid=fid, trust_code=trust_code, progress=progress)
    for line in found["data"]["remarks"]:
        show(f"sightline: {line}", error=True)
    show_measures(screen(), found)
    if generated:
        show(about_fidelity(run, found["fidelity"]))
    if fid:
        show(about_standard_fid(found["fidelity"]["standard_fid"]))


def report(
    run: str, /, *, out: Path | None = None, trust_code: Annotated[bool, Parameter(negative=())] = False
) -> None:
    """Write a finished run's report: how good, on what, where wrong, how sure, how to repeat it; of a generator's, how it
    learned and what it makes.

    Parameters
    ----------
    run
        Folder of a finished run.
    out
        File to write (.html), one page that holds all it shows; report.html in the run unless named.
    trust_code
        Run the code of the repository that a network of torch.hub is built by, to explain its mistakes.
    """
    from sightline.reports.report import report as work
    from sightline.runs.folder import is_generator, read_model_of_finished

    if is_generator(read_model_of_finished(run, generator=None)):
        show(str(work(run, out=out, trust_code=trust_code)))
        return
    from sightline.display.waiting import PATIENCE, Progress

    with Progress(screen(error=True), "Writing the report", patience=PATIENCE) as progress:
        page = work(run, out=out, trust_code=trust_code, progress=progress)
    show(str(page))


def check(
    data: str,
    /,
    *,
    labels: str | None = None,
    out: Path | None = None,
    classes: Annotated[Literal["top", "leaf"] | None, Parameter(name="--data.classes")] = None,
    trust_code: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Look an image set over: broken and odd files, copies, images shared by train and test, suspected label errors.

    Parameters
    ----------
    data
        An image set, as for sightline train.
    labels
        Folder of a finished run whose features judge the labels (confident learning): heads on them are
        asked about images that they did not see. A run that was trained on these very images has learned some of their
        wrong labels; it still finds most.
    out
        Folder to write to: check.html, findings.csv, and exclude.csv for sightline train --data.exclude;
        checks/<data>-<n> unless named.
    classes
        Which folders are the classes, as for sightline train.
    trust_code
        Run the code of the repository that a network of torch.hub is built by.
    """
    from sightline.data.sources.find_source import find_source
    from sightline.runs.folder import read_model_of_finished, refuse_filled

    find_source(data, classes)
    if labels is not None and not labels.endswith(".safetensors"):
        read_model_of_finished(labels)
    if out is not None:
        refuse_filled(out)
    from sightline.checks.check import check as work
    from sightline.checks.problems import KINDS
    from sightline.display.waiting import Progress
    from sightline.training.summary import show_check

    with Progress(screen(error=True), "Checking") as progress:
        found = work(data, labels=labels, out=out, classes=classes, trust_code=trust_code, progress=progress)
    show_check(
        screen(), {KINDS[kind].title: n for kind, n in found.counts.items()}, found.proposals, len(found.excluded)
    )
    show(str(found.folder))


def compare(
    *what: str,
    data: str | None = None,
    seeds: int | None = None,
    fraction: float | None = None,
    out: Path | None = None,
    workers: int | None = None,
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
    workers
        Runs of a study that are trained side by side, each with its share of the threads and of the GPUs; 1 unless named.
        Its seconds are then those of a busy machine.
    """
    from sightline.studies.compare import compare as work

    folder = work(*what, data=data, seeds=seeds, fraction=fraction, out=out, workers=workers, console=screen())
    show(str(folder))
