"""What to do about an image set before a training, the gravest first, and the one command that does it.

Plain decisions over what was measured: nothing here reads a file or an image.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sightline.checks.problems import FEW, KINDS, too_many_near, too_many_suspects
from sightline.data.sizing import HIDDEN_MOST, HIDDEN_MUCH, hidden_share
from sightline.display.terminal import natural_key
from sightline_runtime.sentences import quoted

if TYPE_CHECKING:
    from sightline.checks.check_page import Findings

__all__ = ["EXCLUDED", "Advice", "advise", "by_itself", "train_command"]

EXCLUDED = "exclude.csv"  # in the folder of a check
MANY_CUT = 1 / 5  # of the images, of which the crop hides much, from which on it is what the set is like
LOOKED_AT = ("dark", "bright", "mode", "size", "shape", "tiny")  # kinds of which nothing is proposed but a look
NEAR = ("near duplicate",)  # kinds of copies that cross-validation may deal to two folds
NAMED = 5  # classes that a sentence names; the rest are counted


@dataclass(frozen=True)
class Advice:
    """One thing to do."""

    title: str
    """What, and how many: ``Leave out 6 images``."""
    why: str
    """A sentence or two."""
    how: str = ""
    """What does it, where that is no flag of ``sightline train``."""
    flag: str = ""
    """Of ``sightline train``; empty where there is none."""
    value: str = ""
    """Of the flag; several of one flag stand behind it one after the other."""
    accepted: bool = True
    """Whether the command has the flag from the start; else it is an offer, which changes what is learned."""
    sections: tuple[str, ...] = ()
    """Kinds of findings whose pictures tell more."""


def advise(checked: "Findings", folder: Path) -> list[Advice]:
    """List what to do, the gravest first; nothing where the set can be trained on as it is.

    Args:
        checked: what was found.
        folder: of the check, whose files are named.
    """
    steps = [
        *(leak := _leak(checked, folder)),
        *_labels(checked, folder),
        *(flattering := _flattering(checked, folder)),
        *_left_out(checked, folder, named=bool(leak or flattering), without=NEAR if flattering else ()),
        *_mended_in_test(checked),
        *_merged(checked),
        *_parted(checked),
        *_few(checked),
        *_more(checked),
        *_cut(checked),
        *_looked_at(checked),
    ]
    return steps


def train_command(location: str, steps: Sequence[Advice], layout: str | None = None) -> str:
    """Write the command that trains with all that is accepted.

    Args:
        location: of the image set.
        steps: what is advised.
        layout: which folders are the classes, where that was said.
    """
    flags: dict[str, list[str]] = {} if layout is None else {"--data.classes": [layout]}
    for step in steps:
        if step.flag and step.accepted and step.value not in flags.setdefault(step.flag, []):
            flags[step.flag].append(step.value)
    words = [word for flag, values in flags.items() for word in (flag, *map(quoted, values))]
    return " ".join(["sightline train", quoted(location), *words])


def by_itself(checked: "Findings") -> list[str]:
    """Say what a training does without being told, what more images would bring, and what is nothing to act on."""
    counts, images = checked.counts, checked.images
    sentences = []
    if "unreadable" in counts:
        sentences.append(
            f"A training leaves out by itself what cannot be read ({_times(counts['unreadable'], 'file')})."
        )
    if "mirrored" in counts:
        names = _names([images.classes[item.label] for item in checked.findings if item.kind == "mirrored"])  # type: ignore[index]
        sentences.append(
            f"A training does not mirror images here (--augment.flip none): {names} would look like something else."
        )
    if images.extremes is not None:
        sentences.append(
            "A training measures which values of files with more than 8 bits a channel are shown as black and white."
        )
    if _median_hidden(checked) > HIDDEN_MOST:
        sentences.append(
            "A training squashes images to a square (--data.fit squash), since the crop would hide over half of most."
        )
    curve = checked.classes.curve if checked.classes is not None else None
    if curve is not None:
        low, high = curve.interval
        sentences.append(
            f"Twice as many images would raise the accuracy of heads on features by about {100 * curve.gain:.1f} points"
            f" ({100 * low:.1f} to {100 * high:.1f})."
        )
    if too_many_near(images, checked.findings):
        sentences.append(
            "More than a fifth of the images are near duplicates, as in frames of a film: that is what the set is like,"
            " and none is proposed to be left out for it."
        )
    return sentences


# ── the steps ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _labels(checked: "Findings", folder: Path) -> list[Advice]:
    """Review suspected labels; take what was decided, where it was."""
    count = checked.counts.get("suspected label", 0)
    steps = []
    if count and too_many_suspects(checked.images, checked.findings):
        steps.append(
            Advice(
                "Name a run that knows such images",
                f"{_times(count, 'label')} would be suspected, which is so many that the features seem to know too"
                " little of such images: none is proposed for it.",
                f"Train once, then: sightline check {quoted(checked.images.location)} --labels RUN",
                sections=("suspected label",),
            )
        )
    elif count:
        steps.append(
            Advice(
                f"Review {_times(count, 'label')}",
                f"A classifier that did not see {'the image' if count == 1 else 'these images'} answers another class;"
                " a wrong label teaches the wrong thing, and unusual images look wrong, too.",
                f"sightline review {quoted(str(folder))}",
                sections=("suspected label",),
            )
        )
    if checked.corrections is not None:
        steps.append(
            Advice(
                "Take the labels that were decided",
                f"{checked.corrections.name} holds what was decided on labels; the images stay as they are.",
                flag="--data.corrections",
                value=str(checked.corrections.absolute()),
            )
        )
    return steps


def _leak(checked: "Findings", folder: Path) -> list[Advice]:
    """Leave out of train and validation what test shows as well."""
    leaked = [row for row, item in checked.excluded.items() if item.kind == "shared"]
    if not leaked:
        return []
    tested = {item.other for item in checked.findings if item.kind == "shared" and checked.in_test_split(item.other)}
    why = "The same picture is in train and in validation, which then chooses by what was learned by heart."
    if tested:
        share = len(tested) / sum(part == "test" for part in checked.parts)
        why = (
            f"{_times(len(tested), 'test image')} ({share:.1%}) {'is' if len(tested) == 1 else 'are'} also in train"
            " or validation: the accuracy on test would come out too high."
        )
        if any(item.kind == "shared" and not checked.in_test_split(item.other) for item in checked.excluded.values()):
            why += " Others are in train and in validation."
    return [
        Advice(
            f"Stop the leak between the splits: leave out {_times(len(leaked), 'copy', 'copies')}",
            why,
            f"Listed in {EXCLUDED}.",
            flag="--data.exclude",
            value=_excluded(folder),
            sections=("shared",),
        )
    ]


def _flattering(checked: "Findings", folder: Path) -> list[Advice]:
    """Leave out near copies where cross-validation measures: it deals only identical images together."""
    count = sum(item.kind in NEAR for item in checked.excluded.values())
    if not checked.cross_validated or not count:
        return []
    return [
        Advice(
            f"Leave out {_times(count, 'near copy', 'near copies')}",
            f"Cross-validation measures so few images. {count:,} ({count / len(checked.images.readable):.1%}) of them"
            f" {'is' if count == 1 else 'are'} nearly the same as an image that stays: where two such lie in two folds,"
            " the accuracy comes out somewhat too high.",
            f"Listed in {EXCLUDED}: delete the lines that you disagree with.",
            flag="--data.exclude",
            value=_excluded(folder),
            sections=NEAR,
        )
    ]


def _left_out(checked: "Findings", folder: Path, *, named: bool, without: Sequence[str] = ()) -> list[Advice]:
    """Leave out the rest; ``named``: a step has the flag, and one file one tick; ``without``: kinds told before."""
    counts = Counter(item.kind for item in checked.excluded.values() if item.kind not in ("shared", *without))
    if not counts:
        return []
    kinds = [kind for kind in KINDS if counts[kind]]
    return [
        Advice(
            f"Leave out {_times(counts.total(), 'image')}",
            f"{_sentence('; '.join(f'{counts[kind]:,} {KINDS[kind].proposed}' for kind in kinds))}.",
            f"Listed in {EXCLUDED}{' as well' if named else ''}: delete the lines that you disagree with.",
            flag="" if named else "--data.exclude",
            value="" if named else _excluded(folder),
            sections=tuple(kinds),
        )
    ]


def _excluded(folder: Path) -> str:
    return str((folder / EXCLUDED).absolute())


def _mended_in_test(checked: "Findings") -> list[Advice]:
    if not checked.in_test:
        return []
    return [
        Advice(
            f"Mend {_times(checked.in_test, 'test image')} in the set itself",
            "A training never leaves out any of test, since the hard ones could be left out by it.",
            "findings.csv lists them, with test in the column split.",
        )
    ]


def _merged(checked: "Findings") -> list[Advice]:
    """Offer to merge classes that cannot be told apart."""
    names = checked.images.classes
    return [
        Advice(
            f"Merge {names[pair.one]} and {names[pair.other]}, or mend their labels",
            f"Heads that did not see the images tell {pair.area:.0%} of pairs of the two apart, where a coin tells 50%"
            f" (n = {pair.images:,}; at most {pair.at_most:.0%}, with 95 % confidence over all pairs): they show the"
            " same, or their labels are mixed up, and none of those is suspected by itself. As one class,"
            f" {pair.merged:.1%} of all answers would be right, not {pair.accuracy:.1%}.",
            flag="--data.merge",
            value=f"{names[pair.one]}+{names[pair.other]}",
            accepted=False,
            sections=("confused",),
        )
        for pair in (checked.classes.confused if checked.classes is not None else ())
    ]


def _parted(checked: "Findings") -> list[Advice]:
    """Say which classes fall into two groups."""
    names = checked.images.classes
    return [
        Advice(
            f"Look whether {names[group.label]} is two classes",
            f"Its images fall into two groups that lie {group.apart:.1f} standard deviations apart, as two classes of"
            f" the set do ({group.usual:.1f} in the median); the smaller has {_times(len(group.second), 'image')}.",
            "If so, make two folders of it: findings.csv lists the files of the smaller group (two groups).",
            sections=("two groups",),
        )
        for group in (checked.classes.parted if checked.classes is not None else ())
    ]


def _more(checked: "Findings") -> list[Advice]:
    """Ask for images of the weakest classes, where the learning curve shows that they help."""
    curve = checked.classes.curve if checked.classes is not None else None
    if curve is None or not curve.weakest:
        return []
    names = checked.images.classes
    gains = "; ".join(
        f"about {item.images:,} more of {names[item.label]} would raise the {item.recall:.0%} of it that are recognized"
        f" by {item.gain:.0%} ({item.interval[0]:.0%} to {item.interval[1]:.0%})"
        for item in curve.weakest
    )
    return [
        Advice(
            f"Collect more images of {_names([names[item.label] for item in curve.weakest])}",
            f"By the learning curve, {gains}.",
            "Measured of heads on features (95 % interval); a training that goes on learns more.",
            sections=("curve",),
        )
    ]


def _few(checked: "Findings") -> list[Advice]:
    """Add images to small classes; of an uneven set, weigh the classes."""
    classes = checked.images.classes
    rare = [item for item in checked.findings if item.kind == "rare class" and item.label is not None]
    if not rare:
        return []
    learned = Counter(
        int(checked.images.labels[row])
        for row in checked.images.readable.tolist()
        if checked.parts[row] in ("", "train")
    )
    names = _names([f"{classes[item.label]} ({learned[item.label]})" for item in rare])  # type: ignore[index]
    steps = [
        Advice(
            f"Add images to {_times(len(rare), 'class', 'classes')}",
            f"Too few to learn from, or a small share of the largest class, which a classifier passes over: {names}.",
            f"Wanted: {FEW} training images a class at the very least.",
            sections=("rare class",),
        )
    ]
    most, least = max(learned.values()), min(learned[label] for label in range(len(classes)))
    if any(learned[item.label] * 4 < most for item in rare):  # type: ignore[index]
        steps.append(
            Advice(
                "Or let rare classes count as much as common ones",
                f"The largest class has {most:,} training images, the smallest {least:,}.",
                flag="--fit.class-weights",
                value="balanced",
                accepted=False,
                sections=("rare class",),
            )
        )
    return steps


def _cut(checked: "Findings") -> list[Advice]:
    """Show all of the images where the crop to the center hides much of many."""
    hidden = _hidden(checked)
    cut = int((hidden > HIDDEN_MUCH).sum())
    if cut < MANY_CUT * max(1, len(hidden)) or _median_hidden(checked) > HIDDEN_MOST:
        return []
    return [
        Advice(
            "Show all of each image",
            f"The crop to the center hides more than a third of {cut:,} of {_times(len(hidden), 'image')}"
            f" ({np.median(hidden[hidden > HIDDEN_MUCH]):.0%} of the median one of these). Take it where what matters"
            " may lie near an edge; pad in place of squash keeps the shape of things.",
            flag="--data.fit",
            value="squash",
            accepted=False,
        )
    ]


def _looked_at(checked: "Findings") -> list[Advice]:
    kinds = tuple(kind for kind in LOOKED_AT if kind in checked.counts)
    if not kinds:
        return []
    rows = {item.row for item in checked.findings if item.kind in kinds}
    listed = "; ".join(
        f"{KINDS[kind].title[0].lower()}{KINDS[kind].title[1:]} ({checked.counts[kind]:,})" for kind in kinds
    )
    return [
        Advice(
            f"Look at {_times(len(rows), 'odd image')}",
            f"{_sentence(listed)}: unlike the rest of the set, and perhaps on purpose.",
            f"Add a line to {EXCLUDED} for each that is none.",
            sections=kinds,
        )
    ]


# ── what they are made of ────────────────────────────────────────────────────────────────────────────────────────────


def _hidden(checked: "Findings") -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Compute the share of each image, (n,), that the crop to the center hides; of a published set nothing is known."""
    size = checked.images.size
    return np.array([hidden_share((header.height, header.width), size) for header in checked.headers.values()])


def _median_hidden(checked: "Findings") -> float:
    median = checked.images.median
    return hidden_share(median, checked.images.size) if median is not None and checked.headers else 0.0


def _times(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _names(names: Sequence[str]) -> str:
    """List names, the first few; the rest are counted."""
    unique = sorted(set(names), key=natural_key)
    shown, rest = unique[:NAMED], len(unique) - NAMED
    if rest > 0:
        return f"{', '.join(shown)} and {rest:,} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
