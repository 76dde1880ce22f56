"""Count what happened to the images, or the series, of a study."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True)
class Tally:
    """Hold the counts of one study under one rule."""

    rule: str
    study: str
    """Key of the study, or its UID if the operator asks for UIDs."""
    images: int = 0
    """Images that the rule takes; 0 where it asks about series."""
    series: int = 0
    """Series that the rule takes; 0 where it asks about images. The other counts are of the same."""
    known: int = 0
    """Number that was asked about before."""
    asked: int = 0
    stored: int = 0
    abstained: int = 0
    long_series: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Number that the service does not read, by error code; they are not asked about again."""
    failed: Counter[str] = field(default_factory=Counter)
    """Number whose request failed, by error code; the next round asks about them again."""

    @property
    def total(self) -> int:
        """Return how many images or series the rule takes."""
        return self.images + self.series

    @property
    def is_news(self) -> bool:
        """Return whether anything was done, or left out."""
        return bool(self.asked or self.refused or self.failed or self.long_series)

    def document(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        return {
            "rule": self.rule,
            "study": self.study,
            "images": self.images,
            "series": self.series,
            "known": self.known,
            "asked": self.asked,
            "stored": self.stored,
            "abstained": self.abstained,
            "long_series": self.long_series,
            "refused": dict(self.refused),
            "failed": dict(self.failed),
        }

    def line(self, *, dry_run: bool) -> str:
        """Return the counts for a reader."""
        noun = "series" if self.series else "images"
        if dry_run:
            parts = [f"would ask about {self.total - self.known} of {self.total} {noun}"]
        else:
            parts = [f"{self.asked} of {self.total} {noun} answered", f"{self.stored} reports stored"]
        if self.abstained:
            parts.append(f"{self.abstained} abstained")
        for word, codes in (("refused", self.refused), ("failed", self.failed)):
            if codes:
                parts.append(f"{codes.total()} {word} ({', '.join(sorted(codes))})")
        if self.long_series:
            parts.append(f"{self.long_series} series left out for their length")
        return f"{self.rule}: study {self.study}: {', '.join(parts)}"
