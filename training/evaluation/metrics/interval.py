"""Compute 95 % intervals over clusters (patients, images): exact for shares, bootstrapped for other figures."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

_LOW, _HIGH = 2.5, 97.5
_BISECTIONS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Hold a figure over `n` values with the ends of its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], *, clusters: Sequence[Hashable], seed: int, resamples: int) -> Interval:
    """Return the percentile bootstrap interval, which draws whole clusters with replacement.

    Questions about one image, and images of one patient, succeed and fail together; drawing single ones would make the
    interval too narrow.
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


def share_interval(right: Sequence[bool], *, clusters: Sequence[Hashable], seed: int, resamples: int) -> Interval:
    """Return the exact interval of a share (Clopper and Pearson 1934), or else `mean_interval`.

    The exact interval counts clusters, so it is taken where each has one value or where all values are alike.
    """
    count = len(set(clusters))
    if not right or len(right) != len(clusters) or (count < len(right) and 0 < sum(right) < len(right)):
        return mean_interval([float(value) for value in right], clusters=clusters, seed=seed, resamples=resamples)
    low, high = binomial_interval(min(sum(right), count), count)
    return Interval(value=sum(right) / len(right), low=low, high=high, n=len(right))


def binomial_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share.

    >>> [round(end, 4) for end in binomial_interval(9, 10)]
    [0.555, 0.9975]
    """
    return 1 - _upper_end(n - successes, n), _upper_end(successes, n)


def _upper_end(successes: int, n: int) -> float:
    """Return the share of which at most so many successes are only 2.5 % likely."""
    if successes == n:
        return 1.0
    counts = np.arange(successes + 1)
    chosen = np.concatenate([[0.0], np.cumsum(np.log(n - counts[:-1]) - np.log(counts[1:]))])
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        p = (low + high) / 2
        at_most = np.exp(chosen + counts * math.log(p) + (n - counts) * math.log1p(-p)).sum()
        low, high = (p, high) if at_most > _LOW / 100 else (low, p)
    return (low + high) / 2


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
