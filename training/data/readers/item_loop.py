"""The loop that readers of the original formats share: every item becomes a sample or is accounted for."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType

from medmoe.training.data.errors import SampleError
from medmoe.training.data.read_result import BadItem, ReadResult
from medmoe.training.data.readers.json_items import Place
from medmoe.training.data.readers.record_fields import Record, record_id
from medmoe.training.data.sample import Sample


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A sound item that is not wanted: it is counted under its reason and is no error."""

    reason: str


def read_each(items: Iterable[Place], *, file: str, build: Callable[[Record], Sample | LeftOut]) -> ReadResult:
    """`build` each item; what raises SampleError, or repeats an id, is reported with its place in `file`."""
    samples: list[Sample] = []
    bad: list[BadItem] = []
    excluded: Counter[str] = Counter()
    seen: set[str] = set()
    for place, item in items:
        try:
            if isinstance(item, SampleError):
                raise item
            if not isinstance(item, dict):
                raise SampleError("not a JSON object")
            found = build(item)
            if isinstance(found, LeftOut):
                excluded[found.reason] += 1
                continue
            # Predictions are joined by id, so a second owner would score the wrong answer.
            if found.id in seen:
                raise SampleError("id is used by an earlier item")
        except SampleError as error:
            bad.append(BadItem(file=file, place=place, reason=str(error), id=record_id(item)))
        else:
            seen.add(found.id)
            samples.append(found)
    return ReadResult(samples=tuple(samples), bad=tuple(bad), excluded=MappingProxyType(dict(excluded)))
