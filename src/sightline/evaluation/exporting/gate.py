"""The gate of an exported file: it is run on images of the classifier's own and compared with the network in float32.

What differs is refused before the file gets its name. N images, K classes.
"""

from typing import Any

import numpy as np

from sightline.errors import RunError
from sightline.evaluation.exporting.answers import Answers
from sightline.evaluation.exporting.checked import Checked
from sightline.inference.classifier import Classifier
from sightline.inference.views import combine, shown
from sightline.measures.metrics import probabilities
from sightline.measures.significance import accuracy_interval, paired_interval
from sightline_runtime.decoding.preprocessing import Preprocessing
from sightline_runtime.inputs import try_decode
from sightline_runtime.metadata import Measured, Metadata

__all__ = ["answers_of_classifier", "measure", "refuse_another", "refuse_drift", "refuse_other_pixels"]

NEAR = 1e-4
"""Of probability: how far a file in float32 may lie from its network, and two classes from each other whose order does
not count."""
MOST_LOST = 0.005  # of accuracy, by int8
UNSURE = 1e-3  # of a score of images of no class, or of the spread of such scores: what rounding may make of it
ORIGINALS = 16  # files that are read again

Array = np.ndarray[Any, Any]


def answers_of_classifier(classifier: Classifier, pixels_NHWC: Array, rows: Array) -> Answers:
    """Ask the network itself, in float32, by the way on which ``predict`` does."""
    views = shown(classifier.views)  # without other inputs the graph shows all of them
    outputs = classifier.outputs(pixels_NHWC, views, rows=rows)
    chances_NK = probabilities(combine(outputs.logits_VNK, views), classifier.model["temperatures"][views])
    return Answers(chances_NK, None if classifier.trust is None else outputs.unknown_scores(views))


def measure(file: Answers, reference: Answers, checked: Checked, classifier: Classifier) -> Measured:
    """Measure a file beside its network, on the images that it is checked with.

    Args:
        file, reference: their answers.
        checked: the images.
        classifier: that was exported.
    """
    labels_N, groups_N = checked.labels_N, checked.groups
    right_N, before_N = (one.probabilities_NK.argmax(1) == labels_N for one in (file, reference))
    low, high = accuracy_interval(right_N, groups_N)
    difference, *ends = paired_interval(right_N, before_N, groups_N)
    unknown = None
    if classifier.trust is not None and file.scores_N is not None and reference.scores_N is not None:
        limit = classifier.trust["unknown"]["thresholds"][shown(classifier.views)]
        unknown = int(((file.scores_N > limit) == (reference.scores_N > limit)).sum())
    return Measured(
        data=checked.images.name,
        split=checked.split,
        n=len(labels_N),
        accuracy=float(right_N.mean()),
        interval=(low, high),
        reference_accuracy=float(before_N.mean()),
        difference=difference,
        difference_interval=(ends[0], ends[1]),
        equal_answers=int((file.probabilities_NK.argmax(1) == reference.probabilities_NK.argmax(1)).sum()),
        largest_difference=float(
            np.nan_to_num(np.abs(file.probabilities_NK - reference.probabilities_NK), nan=1.0).max()
        ),
        equal_unknown=unknown,
    )


def refuse_drift(
    metadata: Metadata, file: Answers, reference: Answers, classifier: Classifier, checked: Checked
) -> None:
    """Refuse a file that answers otherwise than its network, class by class by their names.

    Args:
        metadata: as it was read from the file.
        file, reference: answers to the same images.
        classifier: that was exported.
        checked: the images.
    Raises:
        RunError: what differs, and by how much.
    """
    problem = _other_facts(metadata, classifier)
    if not problem:
        order = [metadata.classes.index(name) for name in classifier.classes]
        by_name = Answers(file.probabilities_NK[:, order], file.scores_N)
        problem = _other_answers(by_name, reference, classifier, checked, metadata.numbers == "float32")
    if problem:
        raise RunError(f"the exported file does not answer as the run does: {problem}; no file was written.")


def _other_facts(metadata: Metadata, classifier: Classifier) -> str:
    """Return which fact of a file is not the run's; empty where all are."""
    model, trust = classifier.model, classifier.trust
    if sorted(metadata.classes) != sorted(classifier.classes):
        return "its classes are others"
    facts = {
        "size of the images": ((metadata.height, metadata.width), classifier.resize),
        "rule of the resize": (Preprocessing(metadata.fit, metadata.intensity), classifier.preprocessing),
        "views": (metadata.views, classifier.views),
        "temperatures": (metadata.temperatures, model["temperatures"]),
        "limits of prediction sets": (metadata.sets, trust["sets"]["thresholds"] if trust else None),
        "threshold of adaptive views": (metadata.adaptive, classifier.adaptive_threshold),
        "threshold of unknown images": (metadata.unknown, trust["unknown"]["thresholds"] if trust else None),
    }
    return next((f"its {name} is {its}; the run has {ours}" for name, (its, ours) in facts.items() if its != ours), "")


def _other_answers(file: Answers, reference: Answers, classifier: Classifier, checked: Checked, exactly: bool) -> str:
    """Return how a file's answers differ by more than they may; empty where they do not."""
    if file.probabilities_NK.shape != reference.probabilities_NK.shape or not np.isfinite(file.probabilities_NK).all():
        return "its probabilities are not finite, or of another number of classes"
    n = len(reference.probabilities_NK)
    labels_N = checked.labels_N
    if not exactly:
        right_N, before_N = (one.probabilities_NK.argmax(1) == labels_N for one in (file, reference))
        difference, low, high = paired_interval(right_N, before_N, checked.groups)
        if difference < -MOST_LOST:
            return (
                f"in int8 its accuracy is {right_N.mean():.4f}, and {before_N.mean():.4f} in float32 (difference"
                f" {100 * difference:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}; n = {n:,}; at most"
                f" {100 * MOST_LOST:.1f} may be lost): export it without --int8"
            )
        return ""
    top_NK = np.sort(reference.probabilities_NK, axis=1)
    sure_N = top_NK[:, -1] - top_NK[:, -2] > NEAR if top_NK.shape[1] > 1 else np.ones(n, bool)
    answers_N, before_N = (one.probabilities_NK.argmax(1) for one in (file, reference))
    others = np.flatnonzero(sure_N & (answers_N != before_N))
    if len(others):
        row = others[0]
        name, before = (classifier.classes[one[row]] for one in (answers_N, before_N))
        path = checked.images.paths[checked.rows[row]]
        return f"{len(others):,} of {n:,} images get another class (the first, {path}: {name!r} instead of {before!r})"
    farthest = float(np.abs(file.probabilities_NK - reference.probabilities_NK).max())
    if farthest > NEAR:
        return f"a probability differs by {farthest:.2g}, more than {NEAR:g} (n = {n:,})"
    return _other_scores(file.scores_N, reference.scores_N)


def _other_scores(file_N: Array | None, reference_N: Array | None) -> str:
    if (file_N is None) != (reference_N is None):
        return "one of the two has no score of images of no class"
    if file_N is None or reference_N is None:
        return ""
    spread = float(np.subtract(*np.quantile(reference_N, (0.75, 0.25))))
    farthest = float((np.abs(file_N - reference_N) / np.maximum(np.abs(reference_N), max(1.0, spread))).max())
    if not farthest <= UNSURE:
        return f"a score of images of no class differs by {farthest:.2g} of the spread, more than {UNSURE:g}"
    return ""


def refuse_another(file: Answers, measured: Answers) -> None:
    """Refuse a file that answers otherwise than the one that was measured before it was described.

    Args:
        file: its answers to the first images.
        measured: the other's answers to all.
    Raises:
        RunError: they differ.
    """
    few = len(file.probabilities_NK)
    if not np.allclose(file.probabilities_NK, measured.probabilities_NK[:few], rtol=0, atol=NEAR):
        raise RunError("the exported file answers otherwise than the one that was measured; no file was written.")


def refuse_other_pixels(metadata: Metadata, classifier: Classifier, checked: Checked) -> None:
    """Refuse a file by whose description images are read otherwise than the run reads them, to the bit.

    Raises:
        RunError: the image that would be another.
    """
    for path, data in checked.originals(ORIGINALS):
        ours = try_decode(data, classifier.resize, classifier.preprocessing)
        its = try_decode(data, (metadata.height, metadata.width), Preprocessing(metadata.fit, metadata.intensity))
        if isinstance(ours, str) or isinstance(its, str):
            continue  # it has become unreadable since
        if not np.array_equal(ours, its):
            raise RunError(
                f"the exported file does not answer as the run does: {path} would be resized otherwise; no file was"
                " written."
            )
