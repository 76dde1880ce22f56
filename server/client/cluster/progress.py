"""Describe the progress of a batch on one line."""

from dataclasses import dataclass
from datetime import timedelta

from medmoe.client.cluster.worker import BlockReport


@dataclass(kw_only=True, slots=True)
class Progress:
    """Count answered tasks; times are those of one monotonic clock, in seconds."""

    tasks: int
    """Number of tasks of this run."""
    answered: int = 0
    errors: int = 0
    _begun: float | None = None
    _last: float = 0.0

    def add(self, report: BlockReport, *, now: float) -> None:
        """Count a block that was reported at the time `now`."""
        if self._begun is None:
            # The start of an engine is no part of the throughput.
            self._begun = now - report.seconds
        self._last = now
        self.answered += report.rows
        self.errors += report.errors

    @property
    def rate(self) -> float:
        """Return the number of tasks answered in a second; 0 before the first block."""
        seconds = 0.0 if self._begun is None else self._last - self._begun
        return self.answered / seconds if seconds > 0 else 0.0

    def __str__(self) -> str:
        text = f"{self.answered:,} of {self.tasks:,} answered, {self.errors:,} with errors, {self.rate:.1f} a second"
        left = self.tasks - self.answered
        if self.rate == 0 or left == 0:
            return text
        return f"{text}, {timedelta(seconds=round(left / self.rate))} left"
