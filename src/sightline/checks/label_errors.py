"""Label errors: heads on features judge labels that they did not see. N images, D features, K classes.

A linear head learns from four fifths of the images and is asked about the last fifth, five times over. How many
labels are suspect is counted by confident learning (``measures.metrics.suspected_labels``); which, and how certain that
is, by the probability that the label is right, given the image and the mistakes that are common in the set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sightline.checks.class_facts import ClassFacts, between_others, class_facts, class_findings
from sightline.checks.cross_fitting import NETWORKS, pool
from sightline.checks.embedding import Embedding
from sightline.checks.problems import FEWEST_TO_JUDGE, TOO_FEW_TO_JUDGE, Finding
from sightline.data.cache import CachedImages
from sightline.data.folds import deal_folds
from sightline.inference.logistic_regression import Examples, Head, solve_head
from sightline.inference.vectors import Vectors
from sightline.measures.metrics import confusion_matrix, cross_entropy, suspected_labels, wilson_interval

__all__ = ["FOLDS", "find_label_errors", "neighbors", "out_of_fold", "true_class_posterior"]

FOLDS = 5
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)  # that are tried, strongest first; labels with errors want strong ones
PENALTIES_OF_PARTS = (0.3, 0.1, 0.03)  # the same, of heads that only a learning curve asks for
ITERATIONS = 60  # of L-BFGS for each, at most
MOST_FITTED = 100_000  # images that a head is fitted to: a linear one learns nothing from more, and memory is finite
CERTAIN = 3.0  # standard errors by which the heads must beat the largest class's share to be heard
STEPS = 3  # of expectation maximization: chosen on the single annotator of CIFAR-10N; 1 to 12 differ by 0.0005 of AUROC
BLOCK = 1024  # images that are asked about, or compared, at a time
SPEAKING = 6  # nearest images of the suggested class that are named with a suspect
EXPLAINED = 2_000  # suspects with which they are, the first: nobody looks at more
MOST_NEIGHBORS = 20_000  # images of a class that they are taken from, at most: memory is finite

Array = np.ndarray[Any, Any]
Count = Callable[[int, int], None]


@dataclass(frozen=True)
class LabelErrors:
    """What was found out about the labels of a set."""

    findings: list[Finding]
    """Suspected labels, the most suspect first."""
    notes: list[str]
    """Who judged, how well, and what was not judged: sentences."""
    classes: ClassFacts | None = None
    """What the same answers say of the classes; None where they say too little."""


def find_label_errors(
    images: CachedImages,
    embedding: Embedding,
    progress: Count | None = None,
    networks_NK: Array | None = None,
    alike: tuple[Array, Array] | None = None,
) -> LabelErrors:
    """Find the labels of a set that look wrong to heads which did not see them, and to networks where there are some.

    Args:
        images: the set.
        embedding: of its readable images.
        progress: called with (folds done, folds in all).
        networks_NK: probabilities of the readable images by networks that did not see them either.
        alike: pairs of rows that show one picture, the most alike first: no head judges an image of which it saw the
            other, which may have the same wrong label.
    """
    rows, names = images.readable, images.classes
    labels_N = images.labels[rows]
    enough_K = np.bincount(labels_N, minlength=len(names)) >= FEWEST_TO_JUDGE
    if enough_K.sum() < 2:
        return LabelErrors([], [TOO_FEW_TO_JUDGE])
    places = embedding.places(rows)  # images that were decided to be left out are among its own
    features_ND = embedding.features_ND.part(places)
    both_ND = features_ND.beside(embedding.late_ND.part(places))
    probabilities_NK = out_of_fold(both_ND, labels_N, deal_folds(images, rows, FOLDS, 0, alike), len(names), progress)
    if networks_NK is not None:
        probabilities_NK = pool(probabilities_NK, networks_NK, labels_N)
    right = float((probabilities_NK.argmax(axis=1) == labels_N).mean())
    largest = float(np.bincount(labels_N).max() / len(labels_N))
    notes = [_who_judged(embedding, networks_NK, right)]
    if wilson_interval(right * len(rows), len(rows), CERTAIN)[0] <= largest:
        notes = [
            f"{notes[0]} The largest class alone is {largest:.1%}: they cannot tell these classes apart, and no label"
            " is suspected by them; name a run that can (--labels RUN)."
        ]
        return LabelErrors([], notes)
    if not enough_K.all():
        few = [name for name, enough in zip(names, enough_K.tolist(), strict=True) if not enough]
        notes.append(
            f"Not judged, since the class has fewer than {FEWEST_TO_JUDGE} images: the labels of {', '.join(few)}."
        )
    posterior_NK = true_class_posterior(probabilities_NK, labels_N)
    quality_N = posterior_NK[np.arange(len(rows)), labels_N]
    count = len(suspected_labels(probabilities_NK, labels_N, "noise rate"))
    suspects = [
        place
        for place in np.argsort(quality_N, kind="stable")[:count].tolist()
        if enough_K[labels_N[place]] and quality_N[place] < 1
    ]
    posterior_NK[np.arange(len(rows)), labels_N] = -1
    suggested_N = posterior_NK.argmax(axis=1)
    near = _speaking_for(features_ND, labels_N, suggested_N, suspects)
    findings = [
        Finding(
            "suspected label",
            f"given {names[labels_N[place]]}, suggested {names[suggested_N[place]]} (probability of it"
            f" {posterior_NK[place, suggested_N[place]]:.2f}, of the given {quality_N[place]:.2f})",
            int(rows[place]),
            label=int(labels_N[place]),
            score=round(float(quality_N[place]), 6),
            suggested=int(suggested_N[place]),
            certainty=round(float(posterior_NK[place, suggested_N[place]]), 6),
            neighbors=tuple(rows[near.get(place, [])].tolist()),
            judge=embedding.name if networks_NK is None else f"{embedding.name} and {NETWORKS} networks",
        )
        for place in suspects
    ]

    def answer(part: Array) -> Array:
        folds_n = deal_folds(images, rows[part], FOLDS, 0, alike)
        chances_nK = out_of_fold(both_ND.part(part), labels_N[part], folds_n, len(names), penalties=PENALTIES_OF_PARTS)
        answers_n: Array = chances_nK.argmax(axis=1)
        return answers_n

    facts = class_facts(images, features_ND, probabilities_NK, answer)
    return LabelErrors([*between_others(findings, facts), *class_findings(images, facts)], notes, facts)


def _who_judged(embedding: Embedding, networks_NK: Array | None, right: float) -> str:
    judges = f"heads on {embedding.name}"
    if networks_NK is not None:
        judges += f" and by {NETWORKS} networks, each trained on other images"
    return f"Labels were judged by {judges}, which gave {right:.1%} of the images, none of them seen, their own class."


def true_class_posterior(probabilities_NK: Array, labels_N: Array) -> Array:
    """Estimate how probable each class is to be the true one, given the image and the label that it has.

    Heads that were fitted to labels with errors predict labels, errors included. How often a class is mistaken for
    which other is counted by confident learning; a few steps of expectation maximization, stopped early, take those
    mistakes out of the predictions, and Bayes' rule brings the image's own label in. On the single annotator of
    CIFAR-10N this ranks wrong labels better than the normalized margin (docs/results/labels.md).

    Args:
        probabilities_NK: of the labels, by heads that did not see them.
        labels_N: as they are.
    Returns:
        Probabilities, (N, K), in float32; computed in float64, a block at a time.
    Source:
        Patrini et al., "Making Deep Neural Networks Robust to Label Noise: a Loss Correction Approach", CVPR 2017, has
        the matrix of mistakes; Richardson, "Bayesian-Based Iterative Method of Image Restoration", 1972, the steps.
    """
    classes = probabilities_NK.shape[1]
    likely_N = labels_N.copy()
    suspects = suspected_labels(probabilities_NK, labels_N, "noise rate")
    likely_N[suspects] = probabilities_NK[suspects].argmax(axis=1)
    counts_KK = confusion_matrix(labels_N, likely_N, classes).astype(np.float64)  # by likely class, then label
    mistakes_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    posterior_NK = np.empty((len(labels_N), classes), np.float32)
    for start in range(0, len(labels_N), BLOCK):
        block = slice(start, start + BLOCK)
        observed_nK = probabilities_NK[block].astype(np.float64)
        true_nK = observed_nK
        for _ in range(STEPS):
            explained_nK = np.maximum(true_nK @ mistakes_KK, 1e-12)
            true_nK = _shares(true_nK * ((observed_nK / explained_nK) @ mistakes_KK.T))
        true_nK *= mistakes_KK[:, labels_N[block]].T
        unexplained = np.flatnonzero(true_nK.sum(axis=1) <= 0)
        true_nK[unexplained, labels_N[block][unexplained]] = 1.0
        posterior_NK[block] = _shares(true_nK)
    return posterior_NK


def _shares(weights_NK: Array) -> Array:
    shares_NK: Array = weights_NK / np.maximum(weights_NK.sum(axis=1, keepdims=True), 1e-300)
    return shares_NK


def _speaking_for(
    features_ND: Vectors, labels_N: Array, suggested_N: Array, suspects: list[int]
) -> dict[int, list[int]]:
    """Find images of the suggested class, themselves no suspects, that are nearest to each of the first suspects."""
    first, trusted_N = np.array(suspects[:EXPLAINED], np.int64), np.ones(len(labels_N), bool)
    trusted_N[suspects] = False
    found: dict[int, list[int]] = {}
    for label in np.unique(suggested_N[first]).tolist():
        asking, among = first[suggested_N[first] == label], np.flatnonzero(trusted_N & (labels_N == label))
        among = among[:: max(1, -(-len(among) // MOST_NEIGHBORS))]
        nearest = neighbors(features_ND, asking, among, SPEAKING)
        found |= dict(zip(asking.tolist(), nearest.tolist(), strict=True))
    return found


def out_of_fold(
    features_ND: Array | Vectors,
    labels_N: Array,
    folds_N: Array,
    classes: int,
    progress: Count | None = None,
    penalties: Sequence[float] = PENALTIES,
) -> Array:
    """Compute probabilities of the classes, (N, K), each image's by a head that was fitted without its fold.

    Args:
        features_ND: of the images.
        labels_N: their class indices.
        folds_N: the fold of each.
        classes: how many there are.
        progress: called with (folds done, folds in all).
        penalties: of which that of all heads is chosen, by the cross-entropy on the first fold that has images.
    """
    probabilities_NK = np.full((len(labels_N), classes), 1 / classes, np.float32)
    for fold in range(FOLDS):
        held_N = folds_N == fold
        if held_N.any() and not held_N.all():  # else one image only, or its copies: nothing to judge it by
            fitted = np.flatnonzero(~held_N)
            fitted = fitted[:: -(-len(fitted) // MOST_FITTED)]
            examples = Examples(
                torch.from_numpy(features_ND[fitted]).float(), torch.from_numpy(labels_N[fitted]), classes
            )
            heads = solve_head(examples, penalties, ITERATIONS)
            logits = [_logits(head, features_ND, np.flatnonzero(held_N)) for head in heads]
            best = int(np.argmin([cross_entropy(some_nK, labels_N[held_N]) for some_nK in logits]))
            penalties = (heads[best].penalty,)
            probabilities_NK[held_N] = torch.from_numpy(logits[best]).softmax(1).numpy()
        if progress:
            progress(fold + 1, FOLDS)
    return probabilities_NK


def _logits(head: Head, features_ND: Array | Vectors, places: Array) -> Array:
    """Return the logits of some images, a block at a time."""
    blocks = [places[start : start + BLOCK] for start in range(0, len(places), BLOCK)]
    return np.concatenate([head.logits(torch.from_numpy(features_ND[block]).float()) for block in blocks])


def neighbors(features_ND: Array | Vectors, rows: Array, among: Array, count: int) -> Array:
    """Find the images whose features point most nearly the same way, (n, count), the nearest first.

    Args:
        features_ND: of all images.
        rows: places in it whose neighbors are wanted, (n,).
        among: places in it that may be a neighbor, (m,); an image is none of its own.
        count: neighbors of each; fewer where there are not as many, and the columns are fewer then.
    """
    units_mD = _unit(features_ND[among])
    count = min(count, len(among) - int(np.isin(rows, among).any()))
    nearest = [np.zeros((0, max(count, 0)), np.int64)]
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        likeness_nm = _unit(features_ND[block]) @ units_mD.T
        likeness_nm[block[:, None] == among[None]] = -np.inf
        first = np.argpartition(-likeness_nm, count - 1, axis=1)[:, :count] if count else np.zeros((len(block), 0), int)
        order = np.argsort(-np.take_along_axis(likeness_nm, first, axis=1), axis=1, kind="stable")
        nearest.append(among[np.take_along_axis(first, order, axis=1)])
    return np.concatenate(nearest)


def _unit(features_nD: Array) -> Array:
    """Scale vectors to length 1, in place."""
    units_nD: Array = features_nD.astype(np.float32, copy=False)
    units_nD /= np.maximum(np.linalg.norm(units_nD, axis=1, keepdims=True), 1e-12)
    return units_nD
