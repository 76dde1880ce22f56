"""Hold what a reader found: the samples, and an account of all other records.

Upstream draws another sample at random when one is bad, which changes the data without a word; here nothing leaves
without being counted.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from medmoe.training.data.sample import Sample

_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class BadItem:
    """Describe a record that could not be used."""

    file: str
    place: int
    """Line of a .jsonl, item of a JSON list; counted from 1."""
    reason: str
    id: str | None = None
    """The record's own, as far as it has a usable one."""

    def __str__(self) -> str:
        return f"{self.file}:{self.place}: {self.reason}" + (f" (id {self.id})" if self.id else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadResult:
    """Hold samples in file order, bad records with their places, and good ones left out on purpose, by reason."""

    samples: tuple[Sample, ...] = ()
    bad: tuple[BadItem, ...] = ()
    excluded: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __add__(self, other: Self) -> "ReadResult":
        return ReadResult(
            samples=self.samples + other.samples,
            bad=self.bad + other.bad,
            excluded=MappingProxyType(dict(Counter(self.excluded) + Counter(other.excluded))),
        )

    def summary(self) -> str:
        """Return one line a fact, for a log: counts, why records were left out, and the first bad ones."""
        lines = [f"{len(self.samples)} samples, {len(self.bad)} bad records"]
        lines += [f"left out: {count} ({reason})" for reason, count in self.excluded.items()]
        lines += [f"bad: {item}" for item in self.bad[:_SHOWN]]
        if len(self.bad) > _SHOWN:
            lines.append(f"bad: and {len(self.bad) - _SHOWN} more")
        return "\n".join(lines)
