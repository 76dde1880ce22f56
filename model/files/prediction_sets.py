"""Make sets of labels that hold the true one with a stated probability: split conformal prediction. Torch-free.

The score of a label is 1 minus its probability (least ambiguous sets, Sadinle et al. 2019); thresholds are quantiles of
the true labels' scores on held-out images, of each class on its own where it has enough of them (Vovk 2012).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from medmoe.model.files.calibration_binding import BoundTo, FittedOn, Probability
from medmoe.model.files.strict_json import StrictSection

Scores = Annotated[tuple[Probability, ...], Field(max_length=100_000)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """The largest score with which a label is in the set."""

    value: float
    kind: Literal["class", "marginal"]
    """class: from images of this class. marginal: from those of all classes, where this one has too few."""
    n: int
    """Images behind it."""


class PredictionSets(StrictSection):
    """Scores of the true labels, for one set of labels."""

    labels: tuple[str, ...] = Field(min_length=2)
    """Sorted."""
    bound_to: BoundTo
    fitted_on: FittedOn
    scores: dict[str, Scores]
    """By true label: 1 minus the probability that the model gave to it, before any calibration."""

    def threshold(self, label: str, *, alpha: float) -> Threshold:
        """Return the threshold of a label for sets that miss the true label with a probability of at most `alpha`."""
        own = self.scores.get(label, ())
        if conformal_quantile(own, alpha=alpha) is not None:
            scores: Sequence[float] = own
            kind: Literal["class", "marginal"] = "class"
        else:
            scores, kind = [score for some in self.scores.values() for score in some], "marginal"
        value = conformal_quantile(scores, alpha=alpha)
        # Too few for any statement: every label is in the set.
        return Threshold(value=1.0 if value is None else value, kind=kind, n=len(scores))

    def prediction_set(self, probabilities: Mapping[str, float], *, alpha: float) -> tuple[str, ...]:
        """Return the labels of the set, in the order given; never empty: the likeliest is always in it."""
        best = max(probabilities, key=probabilities.__getitem__)
        return tuple(
            label
            for label, probability in probabilities.items()
            if label == best or 1 - probability <= self.threshold(label, alpha=alpha).value
        )


def conformal_quantile(scores: Sequence[float], *, alpha: float) -> float | None:
    """Return the ceil((n + 1)(1 - alpha))-th smallest of n scores; None where n is too small for that to exist."""
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)
    return sorted(scores)[rank - 1] if 0 < rank <= len(scores) else None
