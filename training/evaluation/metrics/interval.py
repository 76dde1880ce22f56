"""Compute 95 % intervals over clusters (patients, images): of shares, bootstrapped for other figures."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from medmoe.training.evaluation.metrics.beta_distribution import beta_quantile, student_quantile

_LOW, _HIGH = 0.025, 0.975
_FEWEST_CLUSTERS = 5
"""Of k clusters the widest bootstrap interval, from the least of them to the greatest, misses in 2^(1 - k) of cases."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Hold a figure over `n` values with the ends of its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def share_interval(right: Sequence[bool], *, clusters: Sequence[Hashable]) -> Interval:
    """Return the interval of a share (Clopper and Pearson 1934) over whole clusters (Korn and Graubard 1998).

    Questions about one image, and images of one patient, succeed and fail together: the interval is that of fewer
    values, as many as would vary as these clusters do. It is exact where each cluster has one value.
    Raises ValueError as `mean_interval`.
    """
    _require_clusters(right, clusters)
    n, share = len(right), sum(right) / len(right)
    size = _effective_size(np.asarray(right, dtype=float), clusters)
    successes = share * size
    low = beta_quantile(_LOW, successes, size - successes + 1) if share > 0 else 0.0
    high = beta_quantile(_HIGH, successes + 1, size - successes) if share < 1 else 1.0
    return Interval(value=share, low=low, high=high, n=n)


def _effective_size(right: np.ndarray, clusters: Sequence[Hashable]) -> float:
    """Return how many independent values have the variance of the share of `right` (0 or 1, [n]).

    At least as many as if the values of a cluster were always alike, at most n.
    """
    n, share = len(right), float(right.mean())
    members, count = _members(clusters)
    sizes = np.bincount(members)
    fewest = n**2 / float((sizes**2).sum())
    variance = float(((np.bincount(members, weights=right) - share * sizes) ** 2).sum())
    if count == 1 or share in (0, 1):
        return fewest
    if variance == 0:
        return float(n)
    independent = n * share * (1 - share) * (n / (n - 1)) / (variance * count / (count - 1))
    # The variance itself is known from few clusters only.
    known = (student_quantile(n - 1) / student_quantile(count - 1)) ** 2
    return min(max(n * independent * known, fewest), float(n))


def mean_interval(values: Sequence[float], *, clusters: Sequence[Hashable], seed: int, resamples: int) -> Interval:
    """Return the bootstrap interval, which draws whole clusters with replacement.

    Its percentiles are expanded as few clusters need it (Hesterberg 2015). Of fewer than five clusters there is no
    interval: both ends are the mean.
    Raises ValueError when there is nothing to average or a value lacks its cluster.
    """
    _require_clusters(values, clusters)
    members, count = _members(clusters)
    sums = np.bincount(members, weights=values)
    counts = np.bincount(members)
    draws = np.random.default_rng(seed).integers(count, size=(resamples, count))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    return _bootstrapped(float(np.mean(values)), means, n=len(values), clusters=count)


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
    return _bootstrapped(value, finite, n=len(clusters), clusters=count)


def _bootstrapped(value: float, found: Sequence[float] | np.ndarray, *, n: int, clusters: int) -> Interval:
    """Return the interval whose ends a t interval over so many clusters has on the scale of the normal distribution."""
    if clusters < _FEWEST_CLUSTERS:
        return Interval(value=value, low=value, high=value, n=n)
    below = NormalDist().cdf(-math.sqrt(clusters / (clusters - 1)) * student_quantile(clusters - 1))
    low, high = np.quantile(found, [below, 1 - below])
    return Interval(value=value, low=float(low), high=float(high), n=n)


def _require_clusters(values: Sequence[float], clusters: Sequence[Hashable]) -> None:
    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values and {len(clusters)} clusters")


def _members(clusters: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """Return the number of each value's cluster, and the number of clusters."""
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    return np.array([names[cluster] for cluster in clusters], dtype=np.intp), len(names)
