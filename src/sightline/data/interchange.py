"""Decisions on labels as other tools have them: tasks of Label Studio, and labels of FiftyOne. No torch.

Sources, as both tools had it in 2026: https://labelstud.io/guide/task_format (tasks, annotations, choices), and
https://docs.voxel51.com (FiftyOneImageClassificationDataset: ``classes``, and ``labels`` by the path of the image
without its suffix). Of what they hold only answers with one class are decisions; whatever else is counted.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec
from msgspec import Struct

from sightline.config.checks import shown
from sightline.data.corrections import Decision
from sightline.data.sources.csv_table import decode_text
from sightline.errors import ConfigError, DataError
from sightline_runtime.files import read_regular

__all__ = ["FORMATS", "Answer", "Format", "read_answers", "to_fiftyone", "to_label_studio"]

Format = Literal["label-studio", "fiftyone"]
FORMATS = {"label-studio": "Label Studio", "fiftyone": "FiftyOne"}
LABEL, DECISION, OUT = "label", "decision", "leave out"  # names of the two controls of a task, and what the second says
LARGEST = 1 << 29  # bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Class of an image by another tool."""

    image: str
    """Path, URL, or path without its suffix."""
    digest: str = ""
    """Hash of the pixels, where the task came from here."""
    after: str | None
    """The class; None: the image is left out."""
    decided_by: str = ""
    when: str = ""
    """ISO 8601, in UTC; empty where it is not said."""
    why: str = ""


class _Result(Struct):
    type: str = ""
    from_name: str = ""
    value: dict[str, Any] = {}


class _Annotation(Struct):
    result: list[_Result]
    was_cancelled: bool = False
    completed_by: int | str | dict[str, Any] | None = None
    created_at: str | None = None
    updated_at: str | None = None


class _Task(Struct):
    data: dict[str, Any]
    annotations: list[_Annotation]


class _Labels(Struct):
    labels: dict[str, Any]
    classes: list[str] | None = None
    left_out: list[str] = []


def to_label_studio(decisions: Iterable[Decision], prefix: str = "") -> list[dict[str, Any]]:
    """Return decisions as annotated tasks of Label Studio, whose image is ``prefix`` and the path in the set.

    The labeling configuration has a ``Choices`` control ``label`` of the classes, and another, ``decision``, of
    ``leave out``, both ``toName="image"``.
    """
    return [
        {
            "data": {
                "image": prefix + decision.file,
                "hash": decision.digest,
                "from": decision.before,
                "decided_by": decision.decided_by,
                "why": decision.why,
            },
            "annotations": [
                {
                    "result": [
                        {
                            "from_name": DECISION if decision.after is None else LABEL,
                            "to_name": "image",
                            "type": "choices",
                            "value": {"choices": [OUT if decision.after is None else decision.after]},
                        }
                    ],
                    "was_cancelled": False,
                    "created_at": decision.when,
                }
            ],
        }
        for decision in decisions
    ]


def to_fiftyone(decisions: Iterable[Decision]) -> dict[str, Any]:
    """Return decisions as ``labels.json`` of a FiftyOneImageClassificationDataset; what is left out has no label.

    Raises:
        ConfigError: two images have the same path but for their suffix, by which FiftyOne cannot tell them apart.
    """
    chosen = list(decisions)
    classes = sorted({decision.after for decision in chosen if decision.after is not None})
    index_of = {name: index for index, name in enumerate(classes)}
    labels: dict[str, int | None] = {}
    files: dict[str, str] = {}
    for decision in chosen:
        name = str(PurePosixPath(decision.file).with_suffix(""))
        if name in labels:
            raise ConfigError(
                f"{shown(decision.file)} and {shown(files[name])} differ by their suffix alone, by which FiftyOne"
                " cannot tell images apart; rename one, or export for Label Studio."
            )
        labels[name], files[name] = None if decision.after is None else index_of[decision.after], decision.file
    out = [name for name, label in labels.items() if label is None]
    return {"classes": classes, "labels": labels, "left_out": out}


def read_answers(path: str | Path) -> tuple[list[Answer], Format, list[str]]:
    """Read answers of another tool.

    Args:
        path: of a JSON file.
    Returns:
        The answers; the tool that they are of; and notes on images about which nothing is decided.
    Raises:
        ConfigError: it cannot be read, or is neither.
    """
    what = f"--import {path}"
    try:
        content = json.loads(decode_text(read_regular(Path(path).expanduser(), LARGEST), what))
    except OSError as error:
        raise ConfigError(f"{what} cannot be read ({error.strerror or error}); wanted a JSON file.") from error
    except (ValueError, RecursionError, DataError) as error:
        raise ConfigError(f"{what} is no JSON ({error}), or is cut off; export it again.") from error
    try:
        if isinstance(content, list):
            answers, notes = _of_tasks(msgspec.convert(content, list[_Task]), what)
            return answers, "label-studio", notes
        if isinstance(content, Mapping) and "labels" in content:
            answers, notes = _of_labels(msgspec.convert(content, _Labels), what)
            return answers, "fiftyone", notes
    except msgspec.ValidationError as error:
        raise ConfigError(f"{what} is neither of the two ({error}); {_wanted()}") from error
    raise ConfigError(f"{what} is neither tasks nor labels; {_wanted()}")


def _wanted() -> str:
    return (
        "wanted Label Studio's JSON (its export named JSON, not JSON-MIN), or the labels.json of a"
        " FiftyOneImageClassificationDataset."
    )


# ── Label Studio ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_tasks(tasks: list[_Task], what: str) -> tuple[list[Answer], list[str]]:
    control = _control(tasks, what)
    answers, silent, unlike = [], [], []
    for number, task in enumerate(tasks, 1):
        where = f"{what}, task {number}"
        image = _image_of(task, where)
        given = [
            (annotation, after)
            for annotation in task.annotations
            if not annotation.was_cancelled
            for after in _decided(annotation, control, where)
        ]
        if not given:
            silent.append(image)
        elif len({after for _, after in given}) > 1:
            unlike.append(image)
        else:
            answers.append(_answer(task, image, *given[-1]))
    notes = [f"{len(silent):,} tasks are not answered (the first: {silent[0]})"] if silent else []
    if unlike:
        notes.append(f"{len(unlike):,} tasks have answers that differ, and nothing is decided (the first: {unlike[0]})")
    return answers, notes


def _control(tasks: list[_Task], what: str) -> str:
    """Return the name of the control that holds the class."""
    names = {
        result.from_name
        for task in tasks
        for annotation in task.annotations
        for result in annotation.result
        if result.type == "choices" and result.from_name != DECISION
    }
    if LABEL in names or not names:
        return LABEL
    if len(names) > 1:
        raise ConfigError(
            f"{what} has choices of {', '.join(sorted(names))}, and only one can hold the class; name that one"
            f" {LABEL!r}."
        )
    return names.pop()


def _image_of(task: _Task, where: str) -> str:
    texts = {name: value for name, value in task.data.items() if isinstance(value, str)}
    if "image" in texts:
        return texts["image"]
    if len(texts) != 1:
        raise ConfigError(f"{where}: it has no data named 'image'; wanted the path or URL of one.")
    return next(iter(texts.values()))


def _decided(annotation: _Annotation, control: str, where: str) -> Iterator[str | None]:
    """Yield what an annotation decides: a class, None for leaving the image out, or nothing."""
    for result in annotation.result:
        if result.type != "choices" or result.from_name not in (control, DECISION):
            continue
        choices = result.value.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], str) or not choices[0]:
            raise ConfigError(f"{where}: its choices are {shown(choices)}; wanted one class for an image.")
        if result.from_name == DECISION and choices[0] != OUT:
            raise ConfigError(f"{where}: the decision is {shown(choices[0])}; wanted {OUT!r}.")
        yield None if result.from_name == DECISION else choices[0]


def _answer(task: _Task, image: str, annotation: _Annotation, after: str | None) -> Answer:
    by = annotation.completed_by
    texts = {name: str(task.data.get(name) or "") for name in ("hash", "decided_by", "why")}
    if isinstance(by, Mapping):
        by = by.get("email") or by.get("id")
    return Answer(
        image=image,
        digest=texts["hash"],
        after=after,
        decided_by=texts["decided_by"] if by is None else str(by),
        when=_in_utc(annotation.updated_at or annotation.created_at),
        why=texts["why"],
    )


def _in_utc(text: str | None) -> str:
    try:
        when = datetime.fromisoformat(text or "")
    except ValueError:
        return ""
    return when.replace(tzinfo=when.tzinfo or UTC).astimezone(UTC).isoformat(timespec="seconds")


# ── FiftyOne ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_labels(content: _Labels, what: str) -> tuple[list[Answer], list[str]]:
    out, answers, silent = set(content.left_out), [], []
    for image, target in content.labels.items():
        label = target.get("label") if isinstance(target, Mapping) else target
        if label is None:
            if image in out:
                answers.append(Answer(image=image, after=None))
            else:
                silent.append(image)
            continue
        if isinstance(label, int) and not isinstance(label, bool):
            if content.classes is None or not 0 <= label < len(content.classes):
                known = "no classes" if content.classes is None else f"{len(content.classes)} classes"
                raise ConfigError(f"{what}: the label of {shown(image)} is {label}, and there are {known}.")
            label = content.classes[label]
        if not isinstance(label, str) or not label:
            raise ConfigError(f"{what}: the label of {shown(image)} is {shown(target)}; wanted one class.")
        answers.append(Answer(image=image, after=label))
    return answers, [f"{len(silent):,} images have no label (the first: {silent[0]})"] if silent else []
