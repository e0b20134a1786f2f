"""Explain which pixels spoke for a class: a sheet for each image, and a table. B images, H × W pixels, K classes.

Nothing here loads Lightning.
"""

import io
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.config import ALL, SIGNED, AttributionConfig, Method, index_of_class, methods_of, refuse_unknown_class
from sightline.data.augment.augment import centre, normalize
from sightline.data.sources.unlabeled import PlainFiles, plain_files
from sightline.display.pages import Table
from sightline.display.pictures import Panel, draw_explanation
from sightline.errors import ConfigError
from sightline.explanation.attribution import Attribution, attribute
from sightline.explanation.faithfulness import measure_faithfulness, random_maps
from sightline.explanation.requirements import refuse_unfit
from sightline.inference.classifier import Classifier
from sightline.inference.inputs import paths_of
from sightline.inference.predict import decoded_batches, load
from sightline.machine.devices import keep_freed_memory
from sightline.machine.extras import refuse_missing_captum
from sightline.runs.folder import refuse_filled
from sightline.runs.writing import create_folder, write_atomically, write_csv

__all__ = ["ExplainedImage", "Explainer", "Explanation", "Explanations", "explain", "summarize_explanations"]

AT_ONCE = 16  # images that are decoded, explained and written together
LONGEST = 150  # bytes of a sheet's name, before what sets it apart
RANDOM = "random"  # what stands in for a method's name where the map is random

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Explanation:
    """One image by one method."""

    method: str
    """Name of the method, or ``random``."""
    map_HW: Array
    """float32; see ``attribution`` for what its numbers are."""
    gap: float | None
    """Share of the difference to the mean image that the map fails to add up to, where the method promises a sum."""
    deletion: float | None
    """Area under the deletion curve, None where it was not asked for; lower is better."""
    insertion: float | None
    """Area under the insertion curve; higher is better."""


@dataclass(frozen=True)
class ExplainedImage:
    """Explanations of one image by all methods."""

    label: str
    """The class that was asked about."""
    probability: float
    """Of that class, as ``predict`` gives it."""
    predicted: str
    """The most probable class."""
    explanations: list[Explanation]
    random: Explanation | None
    """A random map, with its areas, to compare with; None where none were asked for."""


@dataclass(frozen=True)
class Explanations:
    """Explanations of all images, in their order, and what was left out."""

    files: list[str]
    sheets: list[Path]
    images: list[ExplainedImage]
    unreadable: list[tuple[str, str]]
    """(file, reason) of each that could not be read."""
    left_out: dict[Method, str]
    """Methods that the network lacks something for, where all were asked for, and what."""


class Explainer:
    """Explains images by a classifier: which pixels spoke for a class."""

    def __init__(
        self, classifier: Classifier, methods: Sequence[str], settings: AttributionConfig | None = None
    ) -> None:
        """Choose the methods, and refuse what the network lacks something for.

        Args:
            classifier: from ``load``.
            methods: names, or ``all`` for those that the network has what it takes for.
            settings: numbers of the methods.
        Raises:
            ConfigError: the network lacks what a method needs, or a setting has no effect.
        """
        self.classifier = classifier
        self.settings = settings or AttributionConfig()
        names = methods_of(methods)
        self.settings.refuse_unused(names)
        refuse_missing_captum(names)
        self.left_out: dict[Method, str] = {}
        plain = torch.zeros(1, 3, *classifier.size, device=classifier.device)
        for method in names:
            of_its_own = {"grad_cam": self.settings.layer, "occlusion": self.settings.window}.get(method)
            try:
                refuse_unfit(method, classifier.network, plain, self.settings)
            except ConfigError as error:
                if list(methods) != [ALL] or of_its_own is not None:  # whoever set it wants the method
                    raise
                self.left_out[method] = str(error)
        self.methods = tuple(method for method in names if method not in self.left_out)

    def images(self, pixels_BHWC: Array) -> Tensor:
        """Turn uint8 images at the cached size into what the network is given, (B, 3, H, W), in float32."""
        classifier = self.classifier
        pixels = torch.from_numpy(pixels_BHWC).to(classifier.device)
        return normalize(centre(pixels, classifier.size), classifier.mean, classifier.std, torch.float32)

    def explain(
        self, pixels_BHWC: Array, target: str | None = None, *, faithfulness: bool = True
    ) -> list[ExplainedImage]:
        """Explain uint8 images already at the cached size.

        Args:
            pixels_BHWC: (B, H, W, 3).
            target: the class to ask about; None for the most probable of each image.
            faithfulness: also measure deletion and insertion, of each map and of a random one.
        Raises:
            ConfigError: there is no such class.
        """
        classes = self.classifier.classes
        chances_BK = self.classifier.probabilities(pixels_BHWC)
        predicted_B = chances_BK.argmax(axis=1)
        chosen_B = predicted_B
        if target is not None:
            chosen_B = np.full_like(predicted_B, index_of_class(target, classes))
        images_BCHW = self.images(pixels_BHWC)
        classes_B = torch.from_numpy(chosen_B).to(images_BCHW.device)

        def measured(method: str, maps: Attribution) -> list[Explanation]:
            areas = None
            if faithfulness:
                areas = measure_faithfulness(self._probabilities, images_BCHW, classes_B, maps.maps_BHW)
            return [
                Explanation(
                    method,
                    map_HW.float().cpu().numpy(),
                    None if maps.gaps_B is None else float(maps.gaps_B[i]),
                    None if areas is None else float(areas.deletion_B[i]),
                    None if areas is None else float(areas.insertion_B[i]),
                )
                for i, map_HW in enumerate(maps.maps_BHW)
            ]

        explanations = [
            measured(method, attribute(method, self.classifier.network, images_BCHW, classes_B, self.settings))
            for method in self.methods
        ]
        random: list[Explanation | None] = [None] * len(pixels_BHWC)
        if faithfulness:
            random[:] = measured(RANDOM, Attribution(random_maps(images_BCHW), None))
        return [
            ExplainedImage(
                classes[chosen],
                float(chances_K[chosen]),
                classes[predicted],
                [of_method[i] for of_method in explanations],
                random[i],
            )
            for i, (chosen, predicted, chances_K) in enumerate(zip(chosen_B, predicted_B, chances_BK, strict=True))
        ]

    def _probabilities(self, images_BCHW: Tensor) -> Tensor:
        """Compute calibrated probabilities of one view, (B, K), in float32: what the curves are made of."""
        temperatures = self.classifier.model["temperatures"]
        logits_BK: Tensor = self.classifier.network(images_BCHW)
        chances_BK: Tensor = (logits_BK.float() / temperatures["one"]).softmax(dim=1)
        return chances_BK


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def explain(
    run: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | PlainFiles],
    *,
    out: str | os.PathLike[str],
    methods: Sequence[str] = ("grad_cam",),
    target: str | None = None,
    settings: Mapping[str, Any] | None = None,
    arrays: bool = False,
    faithfulness: bool = True,
    trust_code: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Explanations:
    """Explain what a classifier says of image files, folders of them, and archives.

    Its ten parameters are the arguments and options of ``sightline explain``.

    Args:
        run: a finished run, or its weights file.
        images: files, folders (searched to the bottom) or archives.
        out: folder to make: a sheet (PNG) for each image, and ``explanations.csv``.
        methods: names, or ``all`` for those that the network has what it takes for.
        target: the class to ask about; None for the most probable of each image.
        settings: numbers of the methods and the layer of Grad-CAM, as ``AttributionConfig`` has them.
        arrays: also write the maps of each image (``.npz``), one array a method, in the method's own numbers.
        faithfulness: also measure deletion and insertion, of each map and of a random one.
        trust_code: run the code of the repository that a network of ``torch.hub`` is built by.
        progress: called with (images done, images in all).
    Raises:
        ConfigError: the network lacks what a method needs, a class is unknown, or a setting has no effect.
        DataError: a path is missing, or nothing could be read.
        RunError: no finished run, or ``out`` holds something.
    """
    chosen = AttributionConfig(**(settings or {}))
    names = methods_of(methods)
    chosen.refuse_unused(names)
    refuse_missing_captum(names)
    refuse_filled(out)
    sources = [plain_files(item) for item in paths_of(images)]  # refused before the weights are loaded
    keep_freed_memory()
    classifier = load(run, trust_code=trust_code)
    explainer = Explainer(classifier, methods, chosen)
    if target is not None:
        refuse_unknown_class(target, classifier.classes)
    writer = _Writer(Path(out), arrays)
    total = sum(len(source.names) for source in sources)
    unreadable: list[tuple[str, str]] = []
    for files, pixels in decoded_batches(sources, classifier.resize, AT_ONCE, unreadable, classifier.preprocessing):
        explained = explainer.explain(pixels, target, faithfulness=faithfulness)
        shown = centre(torch.from_numpy(pixels), classifier.size).numpy()
        for name, image, result in zip(files, shown, explained, strict=True):
            writer.write(name, image, result)
        writer.write_table()  # each time, so that one who stops it early has what there is
        if progress:
            progress(len(writer.files) + len(unreadable), total)
    return Explanations(writer.files, writer.sheets, writer.images, unreadable, explainer.left_out)


def summarize_explanations(images: Sequence[ExplainedImage]) -> Table:
    """Sum up each method, and the random map, in a line: the median gap of its sums, and the mean areas of the two curves."""
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
    images: list[ExplainedImage] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def write(self, file: str, pixels_HWC: Array, image: ExplainedImage) -> None:
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
        stem = os.fsdecode(os.fsencode(PurePath(file).stem)[:LONGEST])
        name, number = stem, 1
        while name.casefold() in self.taken:
            number += 1
            name = f"{stem}-{number}"
        self.taken.add(name.casefold())
        return name


def _panel(item: Explanation, random: Explanation | None) -> Panel:
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
