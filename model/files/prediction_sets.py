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

    def thresholds(self, *, alpha: float) -> dict[str, Threshold]:
        """Return the thresholds by label for sets that miss the true label with a probability of at most `alpha`.

        Where a class has too few images for its own, no threshold is below that of all images: below it, the sets
        would miss `alpha` of the other classes and more of this one.
        """
        pooled = [score for some in self.scores.values() for score in some]
        of_all = conformal_quantile(pooled, alpha=alpha)
        # Too few for any statement: every label is in the set.
        marginal = Threshold(value=1.0 if of_all is None else of_all, kind="marginal", n=len(pooled))
        own = {label: self.scores.get(label, ()) for label in self.labels}
        quantiles = {label: conformal_quantile(scores, alpha=alpha) for label, scores in own.items()}
        least = marginal.value if None in quantiles.values() else 0.0
        return {
            label: marginal if value is None else Threshold(value=max(value, least), kind="class", n=len(own[label]))
            for label, value in quantiles.items()
        }

    def prediction_set(self, probabilities: Mapping[str, float], *, alpha: float) -> tuple[str, ...]:
        """Return the labels of the set, in the order given; never empty: the likeliest is always in it."""
        best = max(probabilities, key=probabilities.__getitem__)
        thresholds = self.thresholds(alpha=alpha)
        return tuple(
            label
            for label, probability in probabilities.items()
            if label == best or 1 - probability <= thresholds[label].value
        )


def conformal_quantile(scores: Sequence[float], *, alpha: float) -> float | None:
    """Return the ceil((n + 1)(1 - alpha))-th smallest of n scores; None where n is too small for that to exist."""
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)
    return sorted(scores)[rank - 1] if 0 < rank <= len(scores) else None
