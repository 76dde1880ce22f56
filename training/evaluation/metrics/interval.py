"""Compute bootstrap intervals over images."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

_LOW, _HIGH = 2.5, 97.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Hold a figure over `n` values with the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], *, clusters: Sequence[Hashable], seed: int, resamples: int) -> Interval:
    """Return the percentile bootstrap interval, which draws whole clusters (images) with replacement.

    Questions about one image succeed and fail together; drawing single questions would make the interval too narrow.
    Raises ValueError when there is nothing to average or a value lacks its cluster.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values and {len(clusters)} clusters")
    members, count = _members(clusters)
    sums = np.bincount(members, weights=values)
    counts = np.bincount(members)
    draws = np.random.default_rng(seed).integers(count, size=(resamples, count))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.percentile(means, [_LOW, _HIGH])
    return Interval(value=float(np.mean(values)), low=float(low), high=float(high), n=len(values))


def statistic_interval(
    statistic: Callable[[np.ndarray], float], *, clusters: Sequence[Hashable], seed: int, resamples: int
) -> Interval:
    """Return as `mean_interval` for any `statistic` of the indices that were drawn (int [n], with repeats).

    Draws for which it is not a number (an AUC without positives) are left out of the interval's ends.
    """
    members, count = _members(clusters)
    order = np.argsort(members, kind="stable")
    ends = np.cumsum(np.bincount(members, minlength=count))
    places = np.split(order, ends[:-1])
    draws = np.random.default_rng(seed).integers(count, size=(resamples, count))
    found = [statistic(np.concatenate([places[cluster] for cluster in draw])) for draw in draws]
    value = statistic(np.arange(len(clusters)))
    finite = [number for number in found if np.isfinite(number)] or [value]
    low, high = np.percentile(finite, [_LOW, _HIGH])
    return Interval(value=value, low=float(low), high=float(high), n=len(clusters))


def _members(clusters: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """Return the number of each value's cluster, and the number of clusters."""
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    return np.array([names[cluster] for cluster in clusters], dtype=np.intp), len(names)
