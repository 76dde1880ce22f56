"""Hold the result of a reader: the samples, and an account of all other records.

Upstream draws another sample at random when one is bad, which changes the data silently; here every record
that is left out is counted.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

from medmoe.model.files.terminal_safe import terminal_safe
from medmoe.training.data.sample import Sample

_SHOWN = 5
REPEAT = "repeat of another record"
"""Reason for which a record that says the same again is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BadItem:
    """Describe a record that could not be used."""

    file: str
    place: int
    """Line of a .jsonl, item of a JSON list; counted from 1. 0 is the file itself."""
    reason: str
    id: str | None = None
    """The record's own, as far as it has a usable one."""

    def __str__(self) -> str:
        file = terminal_safe(self.file)
        where = f"{file}:{self.place}" if self.place else file
        return f"{where}: {self.reason}" + (f" (id {terminal_safe(self.id)})" if self.id else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadResult:
    """Hold samples in file order, bad records with their places, and good ones left out on purpose, by reason."""

    samples: tuple[Sample, ...] = ()
    bad: tuple[BadItem, ...] = ()
    excluded: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    renamed: int = 0
    """Samples whose record has the id of an earlier, different one: `-2`, `-3` and so on stand behind theirs."""

    def __add__(self, other: Self) -> "ReadResult":
        return ReadResult(
            samples=self.samples + other.samples,
            bad=self.bad + other.bad,
            excluded=MappingProxyType(dict(Counter(self.excluded) + Counter(other.excluded))),
            renamed=self.renamed + other.renamed,
        )

    def summary(self) -> str:
        """Return one line a fact, for a log: counts, why records were left out, and the first bad ones."""
        lines = [f"{len(self.samples)} samples, {len(self.bad)} bad records"]
        lines += [f"left out: {count} ({reason})" for reason, count in self.excluded.items()]
        if self.renamed:
            lines.append(f"renamed: {self.renamed} (their id is an earlier record's; -2, -3 and so on are appended)")
        lines += [f"bad: {item}" for item in self.bad[:_SHOWN]]
        if len(self.bad) > _SHOWN:
            lines.append(f"bad: and {len(self.bad) - _SHOWN} more")
        return "\n".join(lines)


class SampleCollector:
    """Collect the samples of a file under unique ids: predictions are joined by id."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.bad: list[BadItem] = []
        self.excluded: Counter[str] = Counter()
        self._renamed = 0
        self._by_id: dict[str, Sample] = {}
        self._copies: Counter[str] = Counter()

    def add(self, sample: Sample) -> None:
        """Keep a sample; leave it out where an earlier one has its id and content, rename it where only its id."""
        owner = self._by_id.get(sample.id)
        if owner is not None and _content(owner) == _content(sample):
            self.excluded[REPEAT] += 1
            return
        if owner is not None:
            sample = replace(sample, id=self._free_id(sample.id))
            self._renamed += 1
        self._by_id[sample.id] = sample
        self.samples.append(sample)

    def result(self) -> ReadResult:
        return ReadResult(
            samples=tuple(self.samples),
            bad=tuple(self.bad),
            excluded=MappingProxyType(dict(self.excluded)),
            renamed=self._renamed,
        )

    def _free_id(self, taken: str) -> str:
        self._copies[taken] += 1
        number = self._copies[taken] + 1
        return f"{taken}-{number}" if f"{taken}-{number}" not in self._by_id else self._free_id(taken)


def _content(sample: Sample) -> tuple[object, ...]:
    return sample.image, sample.question, sample.answer, sample.labels
