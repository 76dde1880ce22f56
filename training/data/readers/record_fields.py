"""Read fields of a record strictly: errors name the field and the line, never the value."""

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from medmoe.training.data.errors import SampleError
from medmoe.training.data.readers.image_path import comparable
from medmoe.training.data.sample import AnswerType, Sample

Record = dict[str, Any]

ID_FIELDS = ("id", "pair_id", "qid", "question_id")
"""How the formats call a record's id."""
_ID_LENGTH = 64
_GROUP_FIELDS = ("group", "patient", "patientid", "subject", "subjectid")
"""Letters and digits of the fields that group images; `Patient ID` is one."""

_ANSWER_TYPES: dict[str, AnswerType] = {"open": "open", "close": "closed", "closed": "closed"}


def text(record: Record, field: str) -> str:
    """Return the field without blanks around it. Raises SampleError when it is missing, not text, or blank."""
    if field not in record:
        raise SampleError(f"{field} is missing")
    value = record[field]
    if not isinstance(value, str):
        raise SampleError(f"{field} is not text")
    if not value.strip():
        raise SampleError(f"{field} is blank")
    return value.strip()


def optional_text(record: Record, field: str) -> str | None:
    """Return as `text` does, with None for a field that is missing or null."""
    return None if record.get(field) is None else text(record, field)


def text_or_number(record: Record, field: str) -> str:
    """Return as `text` does, for ids and counts that some releases write as JSON numbers; 2.0 is 2.

    True, false and NaN are no numbers.
    """
    value = record.get(field)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return text(record, field)


def record_id(record: object) -> str | None:
    """Return a record's id for messages, cut to one line; None where it has none."""
    if not isinstance(record, dict):
        return None
    for field in ID_FIELDS:
        value = record.get(field)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            shown = "".join(letter if letter.isprintable() else "?" for letter in str(value).strip()[: _ID_LENGTH + 1])
            return shown if len(shown) <= _ID_LENGTH else f"{shown[:_ID_LENGTH]}..."
    return None


def answer_type_of(answer: str) -> AnswerType:
    """Return `closed` for yes and no, in any capitals and with punctuation behind it, `open` for other answers."""
    return "closed" if answer.lower().rstrip(".!, ") in ("yes", "no") else "open"


def upstream_answer_type(record: Record) -> AnswerType | None:
    """Return `answer_type` from any published spelling (OPEN, CLOSED, close, with blanks); None if absent.

    Raises SampleError for anything else: upstream's scorer skips such questions silently.
    """
    value = record.get("answer_type")
    if value is None:
        return None
    if not isinstance(value, str) or value.strip().lower() not in _ANSWER_TYPES:
        raise SampleError("answer_type is none of open, close, closed")
    return _ANSWER_TYPES[value.strip().lower()]


@lru_cache(maxsize=256)
def group_column(fields: frozenset[str]) -> str | None:
    """Return the field that names the patient, the study or the slide of an image, if there is one."""
    letters = {comparable(name): name for name in sorted(fields)}
    return next((letters[name] for name in _GROUP_FIELDS if name in letters), None)


class ImageGroups:
    """Groups of images, as the records about them name these."""

    def __init__(self) -> None:
        self._by_image: dict[Path, str] = {}

    def add(self, image: Path, record: Record, *, column: str | None) -> None:
        """Note what a record says; its `column` may be missing, or hold nothing.

        Raises SampleError where an earlier record about the image names another group.
        """
        value = None if column is None else record.get(column)
        if column is None or value is None or (isinstance(value, str) and not value.strip()):
            return
        name = text_or_number(record, column)
        if self._by_image.setdefault(image, name) != name:
            raise SampleError(f"{column} is another one than in an earlier row about the image")

    def of(self, samples: Iterable[Sample]) -> tuple[Sample, ...]:
        """Return the samples with the groups of their images."""
        return tuple(replace(sample, group=self._by_image.get(sample.image)) for sample in samples)
