"""Compute medians over repeated runs, with 95 % bootstrap intervals.

What is drawn again is whole runs: requests of one run share its weather, and drawing them would make the interval too
narrow. Runs of two stacks that came one after the other form a pair, and pairs are drawn together.
"""

from collections.abc import Sequence

import numpy as np

from medmoe.training.evaluation.metrics.interval import Interval

RESAMPLES = 10_000
_ENDS = (2.5, 97.5)


def median_interval(values: Sequence[float]) -> Interval:
    """Of one figure, a value a run; the ends are NaN where one run tells nothing about them.

    Raises ValueError when there are no values.
    """
    if not values:
        raise ValueError("no runs")
    known = np.asarray(values, dtype=np.float64)
    if len(known) == 1 or np.isnan(known).any():
        return Interval(value=float(np.median(known)), low=np.nan, high=np.nan, n=len(known))
    # All at once: a table has hundreds of these.
    draws = np.random.default_rng(0).integers(len(known), size=(RESAMPLES, len(known)))
    low, high = np.percentile(np.median(known[draws], axis=1), _ENDS)
    return Interval(value=float(np.median(known)), low=float(low), high=float(high), n=len(known))


def ratio_interval(values: Sequence[float], to: Sequence[float]) -> Interval:
    """The median of the pairs' ratios. Raises ValueError when a run lacks its partner."""
    return median_interval([value / other for value, other in zip(values, to, strict=True)])


def difference_interval(values: Sequence[float], to: Sequence[float]) -> Interval:
    """The median of the pairs' differences. Raises ValueError when a run lacks its partner."""
    return median_interval([value - other for value, other in zip(values, to, strict=True)])


def shown(interval: Interval, *, scale: float = 1.0) -> str:
    """`0.982 (0.975 to 0.991)`; a dash for NaN."""

    def number(value: float) -> str:
        value *= scale
        return "-" if np.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"

    if np.isnan(interval.low):
        return number(interval.value)
    return f"{number(interval.value)} ({number(interval.low)} to {number(interval.high)})"
