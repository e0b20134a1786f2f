"""The verbs that ask a finished classifier: about images, one at a time, many, or for others over the network."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from sightline.config import ServeConfig
from sightline.display.terminal import screen, show, show_rows
from sightline.errors import ConfigError, DataError, RunError

__all__ = ["encode", "explain", "predict", "serve"]

Images = Annotated[str, Parameter(allow_leading_hyphen=True)]  # "-" is the list on standard input


def predict(
    run: Images | None = None,
    /,
    *images: Images,
    out: Path | None = None,
    views: Literal["one", "flip", "six"] | None = None,
    sets: float | None = None,
    trust_code: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Classify images.

    Parameters
    ----------
    run
        Folder of a finished run, or its model.safetensors alone. Where images stand in its place the example classifier
        answers, which tells the ten classes of CIFAR-10 apart.
    images
        Files, folders (searched to the bottom), archives, manifests (CSV, TSV, JSON lines, Parquet), patterns such as
        'photos/*.jpg', and - for a list of paths on standard input, one a line.
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
    _refuse_unknown_options(run or "", *images)
    from sightline.data.sources.layout import LeftOut
    from sightline.data.sources.unlabeled import names_images, plain_files
    from sightline.runs.folder import names_a_run, read_model_of_finished

    if run is not None and names_images(run) and not names_a_run(run):
        images, run = (run, *images), None  # images stand in its place
    if not images:
        if run is not None and not os.path.exists(run):
            raise DataError(f"no run, image, folder or archive at {run!r}; check the spelling of the path.")
        raise DataError("no images were named; give files, folders or archives.")
    for image in images:
        if run is None and names_a_run(image):
            raise RunError(f"{image} is a run; name it first: sightline predict {image} IMAGES...")
    left_out = LeftOut()
    sources = [plain_files(image) for image in images]
    for source in sources:
        left_out.add_all(source.left_out)
    if run is not None and not run.endswith(".safetensors"):
        read_model_of_finished(run)
    from sightline.display.waiting import PATIENCE, Progress
    from sightline.inference.predict import about_box
    from sightline.inference.predict import predict as work
    from sightline.inference.predictions import csv_header, csv_rows
    from sightline.runs.writing import is_stream

    console = screen(error=True)
    with Progress(console, "Predicting", patience=PATIENCE) as progress:
        found = work(run, sources, out=out, views=views, sets=sets, trust_code=trust_code, progress=progress)
    _name_left_out(left_out.sentences())
    _name_unreadable(found.unreadable)
    if run is None:
        show(f"sightline: {about_box()}", error=True)
    if out is not None:
        show(f"{len(found.files):,} predictions in {out}", error=is_stream(out))
    elif len(found.files) == 1:
        (answer,) = found.predictions
        ranked = ", ".join(f"{label} {chance:.1%}" for label, chance in list(answer.probabilities.items())[:5])
        show(f"{found.files[0]}: {'none of these; the nearest: ' if answer.unknown else ''}{ranked}")
        if answer.within is not None:
            show(f"  prediction set for {sets:.0%}: {', '.join(answer.within) or 'empty'}")
    else:
        show_rows(csv_header(sets), csv_rows(found.files, found.predictions))


def explain(
    run: str,
    /,
    *images: Images,
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
        Files, folders (searched to the bottom), archives, manifests, patterns, and - for a list on standard input.
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
    from sightline.data.sources.layout import LeftOut
    from sightline.data.sources.unlabeled import plain_files
    from sightline.machine.extras import refuse_missing_captum
    from sightline.runs.folder import read_model_of_finished, refuse_filled

    _refuse_unknown_options(*images)
    if not images:
        raise DataError("no images were named; give files, folders or archives.")
    numbers = {"steps": steps, "samples": samples, "noise": noise, "window": window, "stride": stride}
    settings = AttributionConfig(layer=layer, **numbers)  # type: ignore[arg-type]
    method = ["grad_cam"] if method is None else method
    settings.refuse_unused(methods_of(method))
    refuse_missing_captum(methods_of(method))
    left_out = LeftOut()
    sources = [plain_files(image) for image in images]
    for source in sources:
        left_out.add_all(source.left_out)
    refuse_filled(out)
    if not run.endswith(".safetensors"):
        model = read_model_of_finished(run)
        if target is not None:
            refuse_unknown_class(target, model["classes"])
    from sightline.display.pages import print_table
    from sightline.display.waiting import PATIENCE, Progress
    from sightline.explanation.explain import explain as work
    from sightline.explanation.explain import summarize_explanations

    with Progress(screen(error=True), "Explaining", patience=PATIENCE) as progress:
        found = work(
            run,
            sources,
            out=out,
            methods=method,
            target=target,
            settings={"layer": layer, **numbers},
            arrays=arrays,
            faithfulness=faithfulness,
            trust_code=trust_code,
            progress=progress,
        )
    _name_left_out(left_out.sentences())
    _name_unreadable(found.unreadable)
    for name, reason in found.left_out.items():
        show(f"sightline: left out {name}: {reason}", error=True)
    print_table(screen(), "", summarize_explanations(found.images))
    show(f"{len(found.files):,} sheet{'s' if len(found.files) > 1 else ''} and explanations.csv in {out}")


def encode(
    run: str,
    /,
    *images: Images,
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
    from sightline.runs.folder import read_model_of_finished

    _refuse_unknown_options(*images)
    if not images:
        raise DataError("no images were named; give files, folders, archives or image sets.")
    if out.suffix != ".npz":
        raise ConfigError(f"--out {out} must end in .npz, the format of the features.")
    if not run.endswith(".safetensors"):
        read_model_of_finished(run)
    from sightline.display.waiting import PATIENCE, Progress
    from sightline.inference.encode import encode as work

    with Progress(screen(error=True), "Encoding", patience=PATIENCE) as progress:
        found = work(run, images, out=out, layer=layer, trust_code=trust_code, progress=progress)
    _name_left_out(found.left_out)
    _name_unreadable(found.unreadable)
    labeled = f", of {len(found.classes)} classes" if found.classes is not None else ""
    show(f"{len(found.files):,} × {found.features.shape[1]:,} features{labeled} in {out}")


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
        Folder of a finished run, or its model.safetensors alone; without it the example classifier, which tells the ten
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
    from sightline.machine.extras import require
    from sightline.runs.folder import read_model_of_finished

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
    from sightline.serving.serve import serve as work

    def announce(address: str, about: str) -> None:
        show(about)
        show(f"{address}  (the service: {address.partition('?')[0]}api; Ctrl-C ends it)")

    work(run, settings=settings, trust_code=trust_code, announce=announce)


def _name_left_out(lines: Iterable[str]) -> None:
    for line in lines:
        show(f"sightline: {line}", error=True)


def _name_unreadable(unreadable: list[tuple[str, str]]) -> None:
    for file, reason in unreadable:
        show(f"sightline: left out {file}: {reason}", error=True)
    if unreadable:
        show(f"sightline: {len(unreadable)} unreadable files were left out.", error=True)


def _refuse_unknown_options(*words: str) -> None:
    """Refuse what the parser took for the name of an image since it may begin with a hyphen."""
    for word in words:
        if word.startswith("-") and word != "-" and not os.path.lexists(word):
            raise ConfigError(f"Unknown option: {word.partition('=')[0]}; --help lists those that there are.")
