"""Measure the calibration of probabilities: reliability bins and the expected calibration error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    n: int
    confidence: float
    """Mean over the bin."""
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    n: int
    mean_confidence: float
    accuracy: float
    ece_equal_mass: float
    """Expected calibration error: mean over samples of |accuracy - confidence| of their bin; `BINS` bins that hold
    equally many samples, ties together."""
    ece_equal_width: float
    """The same with bins of equal width on [0, 1], as Guo et al. (2017) have it; it hangs on few bins when most
    confidences are close to 1."""
    bins: tuple[Bin, ...]
    """The equal-mass ones."""


def reliability(confidences: Sequence[float], correct: Sequence[bool]) -> Reliability:
    """Return the reliability of confidences. Raises ValueError when there is nothing to measure."""
    said, right = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not len(said) or len(said) != len(right):
        raise ValueError(f"{len(said)} confidences and {len(right)} outcomes")
    mass = _bins(said, right, edges=np.quantile(said, np.linspace(0, 1, BINS + 1)[1:-1], method="lower"))
    width = _bins(said, right, edges=np.linspace(0, 1, BINS + 1)[1:-1])
    return Reliability(
        n=len(said),
        mean_confidence=float(said.mean()),
        accuracy=float(right.mean()),
        ece_equal_mass=_ece(mass),
        ece_equal_width=_ece(width),
        bins=mass,
    )


def _bins(said: np.ndarray, right: np.ndarray, *, edges: np.ndarray) -> tuple[Bin, ...]:
    """Return the bins that hold anything, in order; an upper edge belongs to its bin."""
    place = np.searchsorted(edges, said, side="left")
    return tuple(
        Bin(n=int(inside.sum()), confidence=float(said[inside].mean()), accuracy=float(right[inside].mean()))
        for number in range(len(edges) + 1)
        if (inside := place == number).any()
    )


def _ece(bins: Sequence[Bin]) -> float:
    total = sum(found.n for found in bins)
    return float(sum(found.n * abs(found.accuracy - found.confidence) for found in bins) / total)
