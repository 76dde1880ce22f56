"""Fit the maps of calibration.json: temperature scaling by maximum likelihood, isotonic regression by PAV.

Both are a few lines of numpy over convex problems, so that no package is needed for them.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from medmoe.model.files.calibration import Isotonic, Temperature

Method = Literal["temperature", "isotonic"]
_COLDEST, _HOTTEST = 0.05, 20.0
"""Outside of this a temperature says that there was nothing to learn from."""
_FARTHEST_BIAS = 20.0
_STEPS = 60
_EPSILON = 1e-6
_SMALLEST = 1e-300


def fit_labels(rows: Sequence[tuple[Sequence[float], int]], *, method: Method) -> Temperature | Isotonic:
    """Fit a map of label probabilities to (probabilities, index of the true label). Raises ValueError when empty.

    Where all samples are right, the likeliest temperature is 0, which would call every answer certain: the map is then
    that of temperature 1, which changes nothing.
    Isotonic regression takes every label of every sample as one yes-or-no case, because label sets differ.
    """
    if not rows:
        raise ValueError("no samples to fit to")
    if method == "isotonic":
        said = [p for shares, _ in rows for p in shares]
        return isotonic(said, [place == truth for shares, truth in rows for place in range(len(shares))])
    logs = [(np.log(np.maximum(shares, _SMALLEST)), truth) for shares, truth in rows]

    def slope(log_temperature: float) -> float:
        """Return the sum of the expected less the observed log-probabilities, 0 at the likeliest temperature."""
        total = 0.0
        for values, truth in logs:
            scaled = values / np.exp(log_temperature)
            weights = np.exp(scaled - scaled.max())
            total += float((weights * values).sum() / weights.sum() - values[truth])
        return total

    # The likelihood is concave in 1 / T, so its slope changes sign once.
    best = float(np.exp(_root(slope, np.log(_COLDEST), np.log(_HOTTEST))))
    return Temperature(temperature=best if best > _COLDEST * (1 + _EPSILON) else 1.0)


def fit_answers(confidences: Sequence[float], correct: Sequence[bool], *, method: Method) -> Temperature | Isotonic:
    """Return a map from an answer's probability to the probability that it is right. Raises ValueError when empty.

    A temperature alone keeps 1/2 where it is, though an answer of many tokens is easily right below it: a bias is
    fitted too (Platt 1999, with his targets, which keep a perfect separation from running away).
    """
    if not len(confidences):
        raise ValueError("no samples to fit to")
    if method == "isotonic":
        return isotonic(confidences, correct)
    p = np.clip(np.asarray(confidences, dtype=np.float64), _EPSILON, 1 - _EPSILON)
    right = np.asarray(correct, dtype=bool)
    logits = np.log(p / (1 - p))
    targets = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))

    def bias(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return _root(lambda b: float((_sigmoid(scaled + b) - targets).sum()), -_FARTHEST_BIAS, _FARTHEST_BIAS)

    def slope(log_temperature: float) -> float:
        """Return the loss's slope in 1 / T at the best bias."""
        guessed = _sigmoid(logits / np.exp(log_temperature) + bias(log_temperature))
        return float(((guessed - targets) * logits).sum())

    best = _root(slope, np.log(_COLDEST), np.log(_HOTTEST))
    return Temperature(temperature=float(np.exp(best)), bias=bias(best))


def isotonic(said: Sequence[float], happened: Sequence[bool]) -> Isotonic:
    """Fit a non-decreasing map by least squares (pool adjacent violators), linear between its blocks."""
    x, place, count = np.unique(np.asarray(said, dtype=np.float64), return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=np.asarray(happened, dtype=np.float64)) / count
    blocks: list[tuple[float, int, int]] = []  # mean, weight, first place
    for number, (mean, weight) in enumerate(zip(means.tolist(), count.tolist(), strict=True)):
        first = number
        while blocks and blocks[-1][0] >= mean:
            above, heavy, first = blocks.pop()
            mean = (above * heavy + mean * weight) / (heavy + weight)
            weight += heavy
        blocks.append((mean, weight, first))
    ends = [first for _, _, first in blocks[1:]] + [len(x)]
    knots: dict[float, float] = {}
    for (mean, _, first), end in zip(blocks, ends, strict=True):
        # The map is flat within a block: its two ends say everything.
        knots[float(x[first])] = knots[float(x[end - 1])] = min(max(mean, 0.0), 1.0)
    return Isotonic(x=tuple(knots), y=tuple(knots.values()))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a monotone function changes its sign, by bisection; the nearer end when it does not."""
    at_low, at_high = function(low), function(high)
    if (at_low > 0) == (at_high > 0):
        return low if abs(at_low) <= abs(at_high) else high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if (function(middle) > 0) == (at_low > 0):
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _sigmoid(x: np.ndarray) -> np.ndarray:
    found: np.ndarray = 0.5 * (1 + np.tanh(x / 2))
    return found
