"""How well a run tells images of none of its classes: area under ROC (AUROC), and rates at 5 % false alarms.

python benchmarks/ood.py RUN choose           scores and layers on the choosing sets alone: digits and uniform noise against
                                              validation
python benchmarks/ood.py RUN [N] OTHER [...]  the rule of the product against the run's own test images: OTHER sets (their
                                              test split where they bring one), own test images with shuffled patches,
                                              at most N of each, corrupted ones apart, and the seconds that the score costs
python benchmarks/ood.py RUN cost             those seconds alone; test is not read

A run of a version without the reference gets one here, from its training images, as a training makes it.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sightline
from sightline.data.batches import derived_seed
from sightline.data.cache import CachedImages, open_as_trained, open_images
from sightline.data.sources.find_source import find_source
from sightline.data.splits import Splits, split_as
from sightline.evaluation.corruptions import CORRUPTIONS, corrupt
from sightline.evaluation.ood import scrambled, set_threshold, unknown_share
from sightline.inference.classifier import BATCH, Classifier
from sightline.inference.ood import HEAD, Reference, compared_layer, features_of
from sightline.inference.views import combine
from sightline.machine.environment import environment
from sightline.measures.metrics import energies
from sightline.models.base import recorded
from sightline.runs.folder import read_run_recipe
from sightline.training.finish import REFERENCE_IMAGES

MOST = 1_000  # images of each choosing set
REPORTED = 2_500  # images of each reported set, unless named; a fifth of them for each corruption
ROUNDS, TIMED = 7, (64, 256)  # images of more than 64 px, and smaller ones
DRAWS = 1_000  # of the bootstrap

Array = np.ndarray[Any, Any]
Rule = Callable[[Array, Array], Array]  # features of train and of images to a score of each


def main(run: Path, others: list[str]) -> None:
    classifier = sightline.load(run)
    own, cut = own_images(run, classifier)
    train = spread(cut.train, REFERENCE_IMAGES)
    if others == ["choose"]:
        choose(classifier, own, train, spread(cut.calibrate, MOST))
        return
    if classifier.reference is None:
        refer(classifier, own, train, cut.calibrate)
    if others == ["cost"]:
        cost(classifier, own.pixels[spread(cut.train, TIMED[max(classifier.size) <= 64])])
        return
    most = int(others.pop(0)) if others[0].isdigit() else REPORTED
    report(classifier, own, cut, others, most)


def refer(classifier: Classifier, own: CachedImages, train: Array, held_out: Array) -> None:
    """Give a classifier a reference and a threshold, of one view, as a training does."""
    pretrained = bool(classifier.model.get("weights"))
    layer = compared_layer(classifier.network, pretrained)
    reference = classifier.reference = Reference.fit(layer, classifier.features_at(layer, own.pixels, train))
    outputs = classifier.outputs(own.pixels, "one", rows=held_out)
    classifier.reference, _, classifier.model["trust"]["unknown"] = set_threshold(
        reference, outputs, ["one"], pretrained
    )


def own_images(run: Path, classifier: Classifier) -> tuple[CachedImages, Splits]:
    """Open the set that the run was trained on, and cut it as the run did."""
    data = classifier.model["data"]
    images = open_as_trained(
        find_source(data["location"]), read_run_recipe(run).data.size, (classifier.size, classifier.resize)
    )
    return images, split_as(read_run_recipe(run), images, data.get("split_rule", 1), run)


def spread(rows: Array, most: int) -> Array:
    """Return at most so many rows, spread evenly over all."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)]


def other_images(name: str, classifier: Classifier) -> tuple[Array, Array]:
    """Open another set as the classifier reads it: pixels, and the rows of its test split where it brings one."""
    source = find_source(name)
    source.least = 1
    images = open_images(source, None, exactly=(classifier.size, classifier.resize))
    test = [row for row in images.readable.tolist() if images.splits[row] == "test"]
    return images.pixels, np.array(test or images.readable.tolist())


# ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def choose(classifier: Classifier, own: CachedImages, train: Array, held_out: Array) -> None:
    """Print the AUROC of scores at layers, on the choosing sets."""
    digits, rows = other_images("digits", classifier)
    noise = np.random.default_rng(derived_seed("strangers")).integers(
        0, 256, (len(held_out), *own.pixels.shape[1:]), np.uint8
    )
    sets = {
        "train": (own.pixels, train),
        "validation": (own.pixels, held_out),
        "digits": (digits, spread(rows, MOST)),
        "noise": (noise, np.arange(len(noise))),
    }
    print(", ".join(f"{name} {len(rows):,}" for name, (_, rows) in sets.items()))
    names = {module: name for name, module in classifier.network.named_modules()}
    layers = [HEAD, *(names[module] for module in classifier.network.cam_layers)]
    outputs = {name: outputs_at(layers, classifier, pixels, rows) for name, (pixels, rows) in sets.items()}
    logits = {name: one["logits"] for name, one in outputs.items()}
    print_choice("logits", "energy", {name: energies(one) for name, one in logits.items()})
    for layer in layers:
        features = {name: one[layer] for name, one in outputs.items()}
        wide = features["train"].shape[1]
        for rule, score in RULES.items():
            scores = {name: score(features["train"], features[name]) for name in ("validation", "digits", "noise")}
            print_choice(f"{layer} ({wide})", rule, scores)
            if "Mahalanobis" in rule:
                reference = Reference("", None).weighed(scores["validation"], energies(logits["validation"]))  # type: ignore
                summed = {n: one + reference.energy_weight * energies(logits[n]) for n, one in scores.items()}
                print_choice(f"{layer} ({wide})", f"{rule}, and energy", summed)
        if layer == HEAD:
            for rank in (64, 256):
                if rank < wide:
                    axes = principal_axes(features["train"], rank)
                    scores = {n: vim(axes, features, logits, n) for n in ("validation", "digits", "noise")}
                    print_choice(f"{layer} ({wide})", f"ViM, {rank} axes", scores)


def outputs_at(layers: list[str], classifier: Classifier, pixels_NHWC: Array, rows: Array) -> dict[str, Array]:
    """Return the logits of images and their features at each layer."""
    watched = {layer: classifier.network.get_submodule(layer) for layer in layers}
    parts = []
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        with torch.inference_mode(), classifier.autocast(), recorded(watched, lambda *ends: ends) as calls:
            logits = classifier.network(classifier.prepare(pixels_NHWC[some])).float().cpu().numpy()
        parts.append({name: features_of(name, *call, len(some)) for name, call in calls} | {"logits": logits})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def print_choice(layer: str, rule: str, scores: dict[str, Array]) -> None:
    own = scores["validation"]
    areas = [area(own, scores[name]) for name in ("digits", "noise")]
    limit = np.quantile(own, 0.95)
    gap = min((np.quantile(scores[name], 0.05) - limit) / own.std() for name in ("digits", "noise"))
    print(f"{layer:24} {rule:46} digits {areas[0]:.4f}  noise {areas[1]:.4f}  gap {gap:+.2f}", flush=True)


def unit(features_ND: Array) -> Array:
    return features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12)


def nearest(train_ND: Array, features_ND: Array, neighbor: int) -> Array:
    """Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022."""
    return -np.partition(unit(features_ND) @ unit(train_ND).T, -neighbor, axis=1)[:, -neighbor]


def mahalanobis(layer: str) -> Rule:
    return lambda train_ND, features_ND: Reference.fit(layer, train_ND).distances(features_ND)


RULES: dict[str, Rule] = {
    "nearest neighbor": lambda train, features: nearest(train, features, 1),
    "10th nearest neighbor": lambda train, features: nearest(train, features, 10),
    "Mahalanobis": mahalanobis(""),
    "Mahalanobis, features of length 1": mahalanobis(HEAD),
}


def principal_axes(train_ND: Array, rank: int) -> Array:
    _, vectors = np.linalg.eigh(np.cov(train_ND.T.astype(np.float64)))
    return vectors[:, ::-1][:, :rank]


def vim(axes: Array, features: dict[str, Array], logits: dict[str, Array], name: str) -> Array:
    """Wang et al., "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022, centered at the mean."""

    def residual(one: Array) -> Array:
        centered = one - features["train"].mean(0)
        return np.linalg.norm(centered - centered @ axes @ axes.T, axis=1)

    scale = logits["train"].max(1).mean() / residual(features["train"]).mean()
    return scale * residual(features[name]) + energies(logits[name])


# ── reporting ────────────────────────────────────────────────────────────────────────────────────────────────────────


def report(classifier: Classifier, own: CachedImages, cut: Splits, others: list[str], most: int) -> None:
    views = "one"  # the distance is that of the first view, however many there are
    limit = classifier.model["trust"]["unknown"]["thresholds"][views]
    tested = spread(cut.test, most)

    def scores(pixels: Array, rows: Array | None = None) -> dict[str, Array]:
        outputs = classifier.outputs(pixels, views, rows=rows)
        return {"product": outputs.unknown_scores(views), "energy": energies(combine(outputs.logits_VNK, views))}

    random = np.random.default_rng(derived_seed("strangers"))
    test = scores(own.pixels, tested)
    held_out = scores(own.pixels, cut.calibrate)["energy"]
    limits = {"product": limit, "energy": float(np.quantile(held_out, 0.95, method="higher"))}
    foreign = {}
    for name in others:
        pixels, rows = other_images(name, classifier)
        foreign[Path(name).name.partition(".")[0]] = scores(pixels, spread(rows, most))
    foreign["own test, shuffled patches"] = in_parts(
        lambda pixels: scores(scrambled(pixels, random)), own.pixels, tested
    )
    reference = classifier.reference
    assert reference is not None
    size = sum(tensor.numel() * tensor.element_size() for tensor in reference.tensors().values())
    print(f"energy counts {reference.energy_weight:.2f}")
    print(f"own test: n = {len(tested):,}; reference: layer {reference.layer}, {size:,} bytes")
    for rule in ("energy", "product"):
        areas = {name: area(test[rule], one[rule]) for name, one in foreign.items()}
        low, high, of_mean = intervals(test[rule], {name: one[rule] for name, one in foreign.items()})
        print(f"{rule}: own test called none of the classes {unknown_share(test[rule], limits[rule]):.4f}")
        for name, one in foreign.items():
            rate = unknown_share(one[rule], limits[rule])
            n = len(one[rule])
            print(
                f"  {name:28} n = {n:6,}  AUROC {areas[name]:.4f} ({low[name]:.4f} to {high[name]:.4f})  rate {rate:.4f}"
            )
        print(f"  mean AUROC {np.mean(list(areas.values())):.4f} ({of_mean[0]:.4f} to {of_mean[1]:.4f})")
    print("apart, since they are of its classes: own test images corrupted at severity 3, called none of the classes")
    few = spread(cut.test, most // 5)
    for kind in CORRUPTIONS:
        noise = torch.Generator().manual_seed(derived_seed("corruption", kind, 3))
        rates = in_parts(
            lambda pixels, kind=kind, noise=noise: scores(corrupt(torch.from_numpy(pixels), kind, 3, noise).numpy()),
            own.pixels,
            few,
        )
        print(
            f"  {kind:28} n = {len(few):6,}  "
            + "  ".join(f"{rule} {unknown_share(values, limits[rule]):.4f}" for rule, values in rates.items())
        )
    cost(classifier, own.pixels[spread(cut.train, TIMED[max(classifier.size) <= 64])])
    facts = environment()
    print(", ".join(f"{name} {facts[name]}" for name in ("processor", "torch", "sightline") if name in facts))
    print(f"{torch.get_num_threads()} thread(s), {classifier.dtype}")


def in_parts(score: Callable[[Array], dict[str, Array]], pixels_NHWC: Array, rows: Array) -> dict[str, Array]:
    """Score images that are changed on the way, some at a time."""
    parts = [score(np.asarray(pixels_NHWC[rows[start : start + BATCH]])) for start in range(0, len(rows), BATCH)]
    return {rule: np.concatenate([part[rule] for part in parts]) for rule in parts[0]}


def area(own: Array, foreign: Array) -> float:
    """Return the chance that a foreign image scores above one of its own; ties count half."""
    ordered = np.sort(own)
    below, upto = (np.searchsorted(ordered, foreign, side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(own))


def intervals(own: Array, foreign: dict[str, Array]) -> tuple[dict[str, float], dict[str, float], tuple[float, float]]:
    """Return 95 % intervals of each area and of their mean, by the bootstrap over images; own ones are shared."""
    random = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        some = random.choice(own, len(own))
        draws.append([area(some, random.choice(one, len(one))) for one in foreign.values()])
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    means = np.quantile(np.mean(draws, axis=1), (0.025, 0.975))
    return (
        dict(zip(foreign, low, strict=True)),
        dict(zip(foreign, high, strict=True)),
        (float(means[0]), float(means[1])),
    )


def cost(classifier: Classifier, pixels: Array) -> None:
    """Print images a second of processor time with the score and without, in turns, so that nothing beside it counts."""
    reference, seconds = classifier.reference, {True: [], False: []}
    for turn in range(2 * ROUNDS + 2):
        classifier.reference = reference if turn % 2 else None
        start = time.process_time()
        classifier.outputs(pixels, classifier.views)
        if turn > 1:
            seconds[bool(turn % 2)].append(time.process_time() - start)
    with_it, without = (statistics.median(seconds[key]) for key in (True, False))
    best = min(seconds[True]) / min(seconds[False])
    print(
        f"cost, {classifier.views} view(s), {len(pixels)} images, median of {ROUNDS} in turns:"
        f" {len(pixels) / without:.1f} images/s without and {len(pixels) / with_it:.1f} with the score: ratio"
        f" {with_it / without:.3f} (of the fastest {best:.3f})"
    )
    classifier.reference = reference


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
