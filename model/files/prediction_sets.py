"""Make sets of labels that hold the true one with a stated probability: split conformal prediction. Torch-free.

The score of a label is 1 minus its probability (least ambiguous sets, Sadinle et al. 2019); thresholds are quantiles of
the true labels' scores on held-out images, of each class on its own (Vovk 2012). Where a class has too few of them, no
threshold is below the quantile of all images. Sets are nested: a smaller alpha never takes a label away.
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
class Thresholds:
    """The largest score of each label with which it is in the set."""

    values: Mapping[str, float]
    kind: Literal["class", "marginal"]
    """class: each is from images of its class. marginal: some class has too few, and none is below that of all images.
    """


class PredictionSets(StrictSection):
    """Scores of the true labels, for one set of labels."""

    labels: tuple[str, ...] = Field(min_length=2)
    """Sorted."""
    bound_to: BoundTo
    fitted_on: FittedOn
    scores: dict[str, Scores]
    """By true label: 1 minus the probability that the model gave to it, before any calibration."""

    def thresholds(self, *, alpha: float) -> Thresholds:
        """Return the thresholds for sets that miss the true label with a probability of at most `alpha`.

        With the class's own thresholds for the others, the sets would miss `alpha` of these and more of a class with
        too few images. No threshold is below one at a larger alpha.
        """
        scores = {label: self.scores.get(label, ()) for label in self.labels}
        quantiles = {label: conformal_quantile(some, alpha=alpha) for label, some in scores.items()}
        own = {label: value for label, value in quantiles.items() if value is not None}
        if len(own) == len(self.labels):
            return Thresholds(values=own, kind="class")
        of_all = conformal_quantile([score for some in scores.values() for score in some], alpha=alpha)
        # Too few for any statement: every label is in the set.
        least = 1.0 if of_all is None else of_all
        # The largest of a class with too few is its own threshold at the smallest alpha for which it has one.
        values = {label: max(own.get(label, max(some, default=0.0)), least) for label, some in scores.items()}
        return Thresholds(values=values, kind="marginal")

    def prediction_set(self, probabilities: Mapping[str, float], *, alpha: float) -> tuple[str, ...]:
        """Return the labels of the set, in the order given; never empty: the likeliest is always in it."""
        best = max(probabilities, key=probabilities.__getitem__)
        thresholds = self.thresholds(alpha=alpha).values
        return tuple(
            label
            for label, probability in probabilities.items()
            if label == best or 1 - probability <= thresholds[label]
        )


def conformal_quantile(scores: Sequence[float], *, alpha: float) -> float | None:
    """Return the ceil((n + 1)(1 - alpha))-th smallest of n scores; None where n is too small for that to exist."""
    rank = max(math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9), 1)
    return sorted(scores)[rank - 1] if rank <= len(scores) else None
