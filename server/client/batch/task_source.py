"""Read the tasks of a batch from a folder of images or a file of records, and check all of them first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medmoe.client.batch.records import read_records
from medmoe.client.batch.task import ASK_FIELDS, CLASSIFY_FIELDS, FIELDS, Task
from medmoe.client.errors import InvalidInput
from medmoe.client.images.folder import find_images

_OWN = frozenset({"image", "id", "question", "labels"})
_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Tasks:
    """Hold the tasks of an input and notes about it."""

    tasks: tuple[Task, ...]
    notes: tuple[str, ...]
    """Messages about files and fields that were left out."""


def read_tasks(
    source: Path, *, question: str | None, labels: Sequence[str] | None, options: Mapping[str, Any]
) -> Tasks:
    """Read the tasks of a folder or file; `question`, `labels` and `options` are defaults for the lines of a file.

    Raises InvalidInput, which names the first invalid lines by number.
    """
    given = {name: value for name, value in options.items() if value is not None}
    found = (
        _of_folder(source, question=question, labels=labels, options=given)
        if source.is_dir()
        else _of_file(source, question=question, labels=labels, options=given)
    )
    if not found.tasks:
        raise InvalidInput(f"{source} holds nothing to ask about" + "".join(f"; {note}" for note in found.notes))
    return replace(found, tasks=_numbered(found.tasks))


def _of_folder(
    folder: Path, *, question: str | None, labels: Sequence[str] | None, options: Mapping[str, Any]
) -> Tasks:
    found = find_images(folder)
    tasks = []
    for path in found.images:
        record = {"image": path.relative_to(folder).as_posix()}
        tasks.append(_task(record, folder=folder, question=question, labels=labels, options=options))
    return Tasks(tasks=tuple(tasks), notes=found.notes)


def _of_file(file: Path, *, question: str | None, labels: Sequence[str] | None, options: Mapping[str, Any]) -> Tasks:
    tasks, problems, ignored = [], [], set[str]()
    for number, record in read_records(file):
        try:
            if isinstance(record, InvalidInput):
                raise record
            ignored.update(record.keys() - _OWN - FIELDS)
            tasks.append(_task(record, folder=file.parent, question=question, labels=labels, options=options))
        except InvalidInput as error:
            problems.append(f"line {number}: {error}")
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InvalidInput(f"{file.name}, {'; '.join(problems[:_SHOWN])}{more}")
    # Additional fields are allowed, but a misspelt option would be one too.
    notes = (f"fields that are not sent: {', '.join(sorted(ignored))}",) if ignored else ()
    return Tasks(tasks=tuple(tasks), notes=notes)


def _task(
    record: dict[str, Any],
    *,
    folder: Path,
    question: str | None,
    labels: Sequence[str] | None,
    options: Mapping[str, Any],
) -> Task:
    """Return the task of one record. Raises InvalidInput."""
    image = _text(record, "image")
    if image is None:
        raise InvalidInput("image is missing")
    asked, classes = _text(record, "question"), _labels(record)
    if asked is None and classes is None:
        asked, classes = question, tuple(labels) if labels else None
    if asked is None and classes is None:
        raise InvalidInput("neither question nor labels")
    taken = ASK_FIELDS if classes is None else CLASSIFY_FIELDS
    own = {name: value for name, value in record.items() if name in FIELDS - _OWN}
    if strange := sorted(own.keys() - taken):
        raise InvalidInput(f"{', '.join(strange)} is not for a {'question' if classes is None else 'classification'}")
    # A common option applies only to lines that take it.
    common = {name: value for name, value in options.items() if name in taken}
    id_ = record.get("id")
    return Task(
        path=folder / image,
        image=image,
        id=None if id_ is None else str(id_),
        question=asked,
        labels=classes,
        options=common | own,
    )


def _text(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise InvalidInput(f"{name} is no text")
    return value


def _labels(record: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = record.get("labels")
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(label, str) for label in value):
        raise InvalidInput("labels is no list of texts")
    return tuple(value)


def _numbered(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Number equal tasks, so that their keys differ."""
    seen: Counter[str] = Counter()
    found = []
    for task in tasks:
        key = task.key
        found.append(replace(task, repeat=seen[key]))
        seen[key] += 1
    return tuple(found)
