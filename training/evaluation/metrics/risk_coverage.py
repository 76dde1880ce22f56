"""Measure selective prediction: the risk among the answers that the model is surest of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ACCEPTED_RISK = 0.05
_DRAWN = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class RiskCoverage:
    aurc: float
    """Area under the curve (Geifman and El-Yaniv 2017): mean over k of the error among the k most confident."""
    coverage: float
    """Largest share that can be answered with at most `ACCEPTED_RISK` errors among the answered, by one threshold on
    the confidence; 0 when there is none. Chosen with the answers known: on new data the risk will be higher."""
    curve: tuple[tuple[float, float], ...]
    """(coverage, risk), ascending; at most 200 points."""


def risk_coverage(confidences: Sequence[float], correct: Sequence[bool]) -> RiskCoverage:
    """Return the area under the risk-coverage curve; among ties the expected risk counts. Raises ValueError when
    empty.
    """
    said = np.asarray(confidences, dtype=np.float64)
    wrong = 1 - np.asarray(correct, dtype=np.float64)
    if not len(said) or len(said) != len(wrong):
        raise ValueError(f"{len(said)} confidences and {len(wrong)} outcomes")
    _, place, count = np.unique(-said, return_inverse=True, return_counts=True)
    share = np.bincount(place, weights=wrong) / count
    answered = np.arange(1, len(said) + 1)
    risk = np.cumsum(np.repeat(share, count)) / answered
    ends = np.cumsum(count)
    # Float sums of equal errors must not fail a threshold that is met exactly.
    allowed = ends[risk[ends - 1] <= ACCEPTED_RISK + 1e-12]
    drawn = np.unique(np.linspace(0, len(said) - 1, min(len(said), _DRAWN)).round().astype(int))
    return RiskCoverage(
        aurc=float(risk.mean()),
        coverage=float(allowed.max() / len(said)) if len(allowed) else 0.0,
        curve=tuple((float(answered[k] / len(said)), float(risk[k])) for k in drawn),
    )
