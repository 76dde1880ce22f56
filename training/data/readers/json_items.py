"""Read the items of a JSON list or of JSON lines with their places, or the first item alone."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medmoe.training.data.errors import DatasetError, SampleError
from medmoe.training.data.read_result import BadItem, ReadResult, SampleCollector
from medmoe.training.data.readers.record_fields import ImageGroups, Record, group_column, record_id
from medmoe.training.data.sample import Sample

_PEEK = 1 << 16

NumberedItem = tuple[int, Any]
"""Number from 1 (line of a .jsonl, item of a list) and the item; a SampleError stands for a line that is not JSON."""


def read_json_items(file: Path) -> Iterator[NumberedItem]:
    """Yield every item of `file`; blank lines of a .jsonl are passed over but counted.

    Raises DatasetError when the file cannot be read, or when a .json is not a JSON list (nested too deeply included).
    """
    data = _bytes(file)
    if file.suffix.lower() == ".jsonl":
        return _lines(data)
    try:
        items = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is not JSON") from error
    if not isinstance(items, list):
        raise DatasetError(f"{file} is not a JSON list of items")
    return enumerate(items, start=1)


def first_item(file: Path) -> Any:
    """Return the first item, from the file's head where that is enough (some files have 500 MB); None without one.

    Raises DatasetError as `read_json_items` does; a .json that is no list has no first item.
    """
    if file.suffix.lower() == ".json":
        try:
            with file.open("rb") as opened:
                head = opened.read(_PEEK).decode("utf-8-sig", errors="ignore").lstrip()
            if not head.startswith("["):
                return None
            return json.JSONDecoder().raw_decode(head[1:].lstrip())[0]
        except OSError as error:
            raise DatasetError(f"{file} cannot be read: {error.strerror}") from error
        except RecursionError as error:
            raise DatasetError(f"{file} is not JSON") from error
        except ValueError:
            pass  # an empty list, or a first item longer than the head
    _, item = next(iter(read_json_items(file)), (0, None))
    return None if isinstance(item, SampleError) else item


def _lines(data: bytes) -> Iterator[NumberedItem]:
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError):
            yield number, SampleError("malformed JSON")


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A sound item that is not wanted: it is counted under its reason and is no error."""

    reason: str


def read_each(items: Iterable[NumberedItem], *, file: str, build: Callable[[Record], Sample | LeftOut]) -> ReadResult:
    """Apply `build` to each item, and read the group of its image; what raises SampleError is reported with its place
    in `file`.
    """
    collected, groups = SampleCollector(), ImageGroups()
    for place, item in items:
        try:
            if isinstance(item, SampleError):
                raise item
            if not isinstance(item, dict):
                raise SampleError("not a JSON object")
            found = build(item)
            if isinstance(found, LeftOut):
                collected.excluded[found.reason] += 1
                continue
            groups.add(found.image, item, column=group_column(frozenset(item)))
        except SampleError as error:
            collected.bad.append(BadItem(file=file, place=place, reason=str(error), id=record_id(item)))
        else:
            collected.add(found)
    result = collected.result()
    return replace(result, samples=groups.of(result.samples))
