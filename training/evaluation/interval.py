"""A mean and how far it could have come out otherwise, had other images been drawn."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

_LOW, _HIGH = 2.5, 97.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean over `n` values with the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], *, clusters: Sequence[Hashable], seed: int, resamples: int) -> Interval:
    """Percentile bootstrap that draws whole clusters (images) with replacement.

    Questions about one image succeed and fail together; drawing single questions would make the interval too narrow.
    Raises ValueError when there is nothing to average or a value lacks its cluster.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values and {len(clusters)} clusters")
    names = list(dict.fromkeys(clusters))
    place = {name: index for index, name in enumerate(names)}
    members = [place[cluster] for cluster in clusters]
    sums = np.bincount(members, weights=values)
    counts = np.bincount(members)
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.percentile(means, [_LOW, _HIGH])
    return Interval(value=float(np.mean(values)), low=float(low), high=float(high), n=len(values))
