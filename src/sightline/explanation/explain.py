"""Show which pixels spoke for a class: a sheet for each image, and a table. H × W pixels.

Nothing here loads Lightning, nor torch before there is an image to explain.
"""

import io
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.config.explaining import SIGNED, AttributionConfig, Method, methods_of, refuse_unknown_class
from sightline.data.seen import about_learned, learned_files
from sightline.data.sources.entries import file_name
from sightline.data.sources.unlabeled import PlainFiles
from sightline.display.notebook import show_in_cell
from sightline.display.pages import Table
from sightline.display.pictures import Panel, draw_explanation
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.inference.predict import decoded_batches, load, sources_of
from sightline.machine.extras import refuse_missing_captum
from sightline.runs.folder import read_model_of_finished, refuse_filled
from sightline.runs.hub import weights_of
from sightline.runs.writing import create_folder, write_atomically, write_csv

if TYPE_CHECKING:
    from sightline.explanation.explainer import ExplainedImage, Explanation

__all__ = ["Explanations", "explain", "summarize_explanations"]

AT_ONCE = 16  # images that are decoded, explained and written together
SHOWN = 4  # sheets in the cell of a notebook
LONGEST = 150  # bytes of a sheet's name, before what sets it apart

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Explanations:
    """Explanations of all images, in their order, and what was left out."""

    files: list[str]
    sheets: list[Path]
    images: "list[ExplainedImage]"
    unreadable: list[tuple[str, str]]
    """(file, reason) of each that could not be read."""
    left_out: dict[Method, str]
    """Methods that the network lacks something for, where all were asked for, and what."""
    no_images: list[str] = field(default_factory=list)
    """Lines on files that were found and are no images, by reason and suffix."""
    learned: list[str] = field(default_factory=list)
    """Files that the run has learned from, pixel for pixel: its answers to them are no evidence."""

    def _ipython_display_(self) -> None:
        notes = [*self.no_images, *(f"left out {name}: {reason}" for name, reason in self.unreadable)]
        notes += [f"left out {method}: {reason}" for method, reason in self.left_out.items()]
        notes += about_learned(self.learned, len(self.files))
        if len(self.sheets) > SHOWN:
            notes.append(f"{len(self.sheets) - SHOWN:,} more are in {self.sheets[0].parent}")
        show_in_cell(summarize_explanations(self.images), *self.sheets[:SHOWN], *notes)


@reporting
def explain(
    run: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | PlainFiles],
    *,
    out: str | os.PathLike[str],
    methods: Sequence[str] = (),
    target: str | None = None,
    settings: AttributionConfig | Mapping[str, Any] | None = None,
    arrays: bool = False,
    faithfulness: bool = True,
    trust_code: bool = False,
    on_event: Listener = ignore,
) -> Explanations:
    """Show which pixels spoke for a class: a sheet for each image.

    Ten parameters because they are the arguments and options of ``sightline explain``.

    Args:
        run: Folder of a finished run, its model.safetensors alone, or hf:OWNER/NAME[@REVISION] of the hub.
        images: Files, folders (searched to the bottom), archives, manifests, patterns, and - for a list on standard
            input.
        out: Folder to make, with the sheets (PNG) and explanations.csv.
        methods: One or several of saliency, integrated_gradients, integrated_gradients_smoothgrad, deeplift, occlusion,
            gradient_shap, grad_cam, attention (of an attention head); or all, for those that the network is made for.
            Unless named deeplift, the most faithful of those that take one pass, or grad_cam where deeplift has no rule
            for the network, or a layer is named. All but grad_cam and attention need captum.
        target: The class to ask about; the most probable of each image unless named.
        settings: Numbers of the methods, and the layer of grad_cam.
        arrays: Also write the maps of each image (.npz), one array a method, in the method's own numbers.
        faithfulness: Measure deletion and insertion: how the probability falls and rises in the order of each map, and
            of a random one.
        trust_code: Run the code of the repository that a network of torch.hub is built by.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Raises:
        ConfigError: the network lacks what a method needs, a class is unknown, or a setting has no effect.
        DataError: a path is missing, or nothing could be read.
        RunError: no finished run, or ``out`` holds something.
    """
    chosen = settings if isinstance(settings, AttributionConfig) else AttributionConfig(**(settings or {}))
    methods = methods or (("grad_cam",) if chosen.layer is not None else ())
    chosen.refuse_unused(methods_of(methods or ("deeplift",)))
    if methods:
        refuse_missing_captum(methods_of(methods))
    with stage(on_event, "Explaining", brief=True) as progress:
        sources, no_images = sources_of(images)
        refuse_filled(out)
        run = weights_of(run, on_event)
        if target is not None and run.suffix != ".safetensors":
            refuse_unknown_class(target, read_model_of_finished(run)["classes"])
        classifier = load(run, trust_code=trust_code)  # refuses before torch is loaded
        if target is not None:
            refuse_unknown_class(target, classifier.classes)
        import torch

        from sightline.data.augment.augment import center
        from sightline.explanation.explainer import Explainer, quick_method
        from sightline.machine.devices import keep_freed_memory

        keep_freed_memory()
        explainer = Explainer(classifier, methods or (quick_method(classifier),), chosen)
        writer = _Writer(Path(out), arrays)
        total = sum(len(source.names) for source in sources)
        unreadable, hashes = list[tuple[str, str]](), list[str]()
        reading = (classifier.resize, AT_ONCE, unreadable, classifier.preprocessing, hashes)
        for files, pixels in decoded_batches(sources, *reading):
            explained = explainer.explain(pixels, target, faithfulness=faithfulness)
            shown = center(torch.from_numpy(pixels), classifier.size).numpy()
            for name, image, result in zip(files, shown, explained, strict=True):
                writer.write(name, image, result)
            writer.write_table()  # each time, so that one who stops it early has what there is
            progress(len(writer.files) + len(unreadable), total)
        learned = learned_files(run, writer.files, hashes)
        written = (writer.files, writer.sheets, writer.images, unreadable, explainer.left_out, no_images)
        return Explanations(*written, learned)


def summarize_explanations(images: "Sequence[ExplainedImage]") -> Table:
    """Sum up each method, and the random map, in a line: median gap of the sums, mean areas of the two curves."""
    by_method: dict[str, list[Explanation]] = {}
    for image in images:
        for item in (*image.explanations, *([image.random] if image.random else [])):
            by_method.setdefault(item.method, []).append(item)
    rows = []
    for method, items in by_method.items():
        gaps, *areas = (
            [value for item in items if (value := getattr(item, name)) is not None]
            for name in ("gap", "deletion", "insertion")
        )
        gap = f"{statistics.median(gaps):.2%} ({max(gaps):.2%})" if gaps else ""
        rows.append([method, str(len(items)), gap, *(f"{statistics.mean(area):.3f}" if area else "" for area in areas)])
    return Table(["method", "images", "sum off by (worst)", "deletion (low is good)", "insertion (high is good)"], rows)


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Writer:
    """Writes sheets into a folder, which it makes, and remembers what it wrote."""

    folder: Path
    arrays: bool
    files: list[str] = field(default_factory=list)
    sheets: list[Path] = field(default_factory=list)
    images: "list[ExplainedImage]" = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def write(self, file: str, pixels_HWC: Array, image: "ExplainedImage") -> None:
        """Write the sheet of an image, and its maps as arrays where they are wanted."""
        create_folder(self.folder)
        sheet = self.folder / f"{self._free_name(file)}.png"
        about = [PurePath(file).name, f"class {image.label}", f"probability {image.probability:.1%}"]
        if image.predicted != image.label:
            about.append(f"most probable: {image.predicted}")
        if any(item.method in SIGNED for item in image.explanations):
            about += ["", "red speaks for the class,", "blue against it"]
        draw_explanation(sheet, pixels_HWC, about, [_panel(item, image.random) for item in image.explanations])
        if self.arrays:
            plain = file.encode("utf-8", "backslashreplace").decode()  # numpy holds no odd bytes
            content = io.BytesIO()
            maps: dict[str, Any] = {item.method: item.map_HW for item in image.explanations}
            np.savez(content, **maps, image=np.array(plain), label=np.array(image.label))
            write_atomically(sheet.with_suffix(".npz"), content.getvalue())
        self.files.append(file)
        self.sheets.append(sheet)
        self.images.append(image)

    def write_table(self) -> None:
        """Write a line for each image and method."""
        header = ["file", "sheet", "class", "probability", "predicted", "method", "completeness_gap"]
        header += ["deletion", "insertion", "deletion_random", "insertion_random"]
        rows = []
        for file, sheet, image in zip(self.files, self.sheets, self.images, strict=True):
            of_image = [file, sheet.name, image.label, f"{image.probability:.6f}", image.predicted]
            random = [image.random.deletion, image.random.insertion] if image.random else [None, None]
            for item in image.explanations:
                numbers = [item.gap, item.deletion, item.insertion, *random]
                rows.append([*of_image, item.method, *("" if value is None else f"{value:.6g}" for value in numbers)])
        write_csv(self.folder / "explanations.csv", header, rows)

    def _free_name(self, file: str) -> str:
        """Choose a name for the sheet of a file that no other has, also where upper and lower case are one."""
        stem = file_name(PurePath(file).stem)
        if len(whole := os.fsencode(stem)) > LONGEST:
            stem = whole[:LONGEST].decode("utf-8", "ignore")  # half a letter is a name that macOS refuses
        name, number = stem, 1
        while name.casefold() in self.taken:
            number += 1
            name = f"{stem}-{number}"
        self.taken.add(name.casefold())
        return name


def _panel(item: "Explanation", random: "Explanation | None") -> Panel:
    """Say on a sheet what there is to say of one method."""
    notes = []
    if not item.map_HW.any():
        notes.append("zero everywhere: nothing here raises the class")
    if item.gap is not None:
        notes.append(f"sum off by {max(item.gap, 1e-4):.2%}")
    if random is not None and random.deletion is not None:
        notes.append(
            f"deletion {item.deletion:.2f} (random {random.deletion:.2f}),"
            f" insertion {item.insertion:.2f} (random {random.insertion:.2f})"
        )
    title = item.method + (", whatever the class" if item.method == "attention" else "")
    return Panel(title, item.map_HW, item.method in SIGNED, notes)
