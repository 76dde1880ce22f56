"""Count over a sliding window of an hour, in a ring of time buckets of bounded memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

BUCKET_SECONDS = 10
LONGEST_SECONDS = 3600
_BUCKETS = LONGEST_SECONDS // BUCKET_SECONDS + 1
"""Buckets of the longest window and one more, because the newest is never full."""

Key = tuple[str, str]
"""Route and modality."""


@dataclass(slots=True)
class Counts:
    """Sums of counts by key."""

    requests: int = 0
    by_key: dict[Key, np.ndarray] = field(default_factory=dict)

    def add(self, key: Key, counts: np.ndarray, *, requests: int = 1) -> None:
        self.requests += requests
        self.by_key[key] = self.by_key.get(key, 0) + counts


class SlidingWindow:
    """Counts of the last hour. Use it on the event loop's thread."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """`clock` gives seconds and never goes back."""
        self._clock = clock
        self._buckets: dict[int, tuple[int, Counts]] = {}
        """Span of time and counts of each place in the ring."""

    def add(self, key: Key, counts: np.ndarray) -> None:
        """Count one request now."""
        span = self._span()
        place = span % _BUCKETS
        held, bucket = self._buckets.get(place, (span, Counts()))
        if held != span:
            bucket = Counts()
        self._buckets[place] = (span, bucket)
        bucket.add(key, counts)

    def last(self, seconds: int) -> Counts:
        """Return the sums over the last `seconds` (at most LONGEST_SECONDS) and up to one bucket's time more."""
        newest = self._span()
        oldest = newest - math.ceil(seconds / BUCKET_SECONDS)
        total = Counts()
        for span, bucket in self._buckets.values():
            if oldest <= span <= newest:
                total.requests += bucket.requests
                for key, counts in bucket.by_key.items():
                    total.add(key, counts, requests=0)
        return total

    def _span(self) -> int:
        return int(self._clock() // BUCKET_SECONDS)
