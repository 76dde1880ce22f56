"""Calibrate the model's probabilities by the maps in calibration.json. Torch-free.

medmoe.training.evaluation fits the maps. A file belongs to exactly one set of weights: on others it would be wrong and
look right.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from medmoe.model.files.calibration_binding import BoundTo, Dtype, FittedOn, Probability
from medmoe.model.files.prediction_sets import PredictionSets
from medmoe.model.files.strict_json import StrictSection
from medmoe.model.files.weights_bound_file import WeightsBoundFile

CALIBRATION_FILE = "calibration.json"
_EPSILON = 1e-6
"""Probabilities are kept this far from 0 and 1 where their logit is taken."""

NotNegative = Annotated[float, Field(ge=0)]


class Temperature(StrictSection):
    """Temperature scaling (Guo et al. 2017); with a bias, for a single probability, Platt's (1999)."""

    method: Literal["temperature"] = "temperature"
    temperature: float = Field(ge=0.001, le=1000)
    """Above 1: the model was too sure. A smaller one overflows."""
    bias: float = 0.0
    """Added to the scaled logit of a single probability; label probabilities have none."""

    def labels(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Return p_i^(1/T), divided by their sum."""
        logs = [math.log(p) / self.temperature if p > 0 else -math.inf for p in probabilities]
        highest = max(logs)
        weights = [math.exp(value - highest) for value in logs]
        return _normalised(weights)

    def single(self, probability: float) -> float:
        """Return sigmoid(logit(p) / T + bias)."""
        p = min(max(probability, _EPSILON), 1 - _EPSILON)
        scaled = math.log(p / (1 - p)) / self.temperature + self.bias
        return 1 / (1 + math.exp(-scaled)) if scaled >= 0 else math.exp(scaled) / (1 + math.exp(scaled))


class Isotonic(StrictSection):
    """A non-decreasing, piecewise linear map, constant beyond its ends (Zadrozny and Elkan 2002)."""

    method: Literal["isotonic"] = "isotonic"
    x: tuple[Probability, ...] = Field(min_length=1, max_length=100_000)
    """Ascending."""
    y: tuple[Probability, ...] = Field(min_length=1, max_length=100_000)
    """The map's values at `x`; never falling."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError("x and y differ in length")
        if any(right <= left for left, right in zip(self.x, self.x[1:], strict=False)):
            raise ValueError("x must ascend")
        if any(right < left for left, right in zip(self.y, self.y[1:], strict=False)):
            raise ValueError("y must not fall")
        return self

    def labels(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Return each label's probability through the map, then divided by their sum."""
        # Never exactly 0: a set of labels that the map knows nothing good of must still sum to one.
        return _normalised([max(self.single(p), _EPSILON) for p in probabilities])

    def single(self, probability: float) -> float:
        return float(np.interp(probability, self.x, self.y))


Map = Annotated[Temperature | Isotonic, Field(discriminator="method")]


class HeldOut(StrictSection):
    """Effect of the map on samples of the same split, on images that had no part in the fit."""

    n: int = Field(gt=0)
    ece_before: Probability
    """Expected calibration error: 15 bins that hold equally many samples."""
    ece_after: Probability
    nll_before: NotNegative
    """Mean negative log-likelihood, in nats."""
    nll_after: NotNegative

    @property
    def helps(self) -> bool:
        """Return whether both errors fell. A well calibrated model, or a small split, leaves no gain."""
        return self.nll_after < self.nll_before and self.ece_after < self.ece_before


class _Fit(StrictSection):
    map: Map
    bound_to: BoundTo | None = None
    """None in files of earlier versions, whose maps are not applied."""
    fitted_on: FittedOn
    held_out: HeldOut

    @property
    def helps(self) -> bool:
        """Return whether both errors fell on the held-out samples."""
        return self.held_out.helps

    def applies(self, *, prompt_sha256: str, dtype: Dtype | None) -> bool:
        """Return whether it helps and was fitted with this prompt and number format; None is an engine without one."""
        bound = self.bound_to
        return self.helps and bound is not None and bound.holds(prompt_sha256=prompt_sha256, dtype=dtype)


class LabelCalibration(_Fit):
    """For `/v1/classify` in mode likelihood: probabilities over one set of labels. It keeps their order, up to ties."""

    labels: tuple[str, ...] = ()
    """The set, sorted."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.map, Temperature) and self.map.bias != 0:
            raise ValueError("label probabilities have no bias: adding one to every logit changes nothing")
        return self

    def apply(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Return probabilities in order, with sum 1. Raises ValueError for values that are no distribution."""
        if not probabilities or not math.isclose(math.fsum(probabilities), 1, abs_tol=1e-3):
            raise ValueError("label probabilities must sum to 1")
        return self.map.labels(probabilities)


class AnswerCalibration(_Fit):
    """For `/v1/vqa`: from the probability of the answer's text to the probability that the answer is right.

    Right means equal to the reference after normalisation; it is neither "not harmful" nor "useful".
    """

    def apply(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Return each answer's probability on its own; order among answers is kept, up to ties."""
        return tuple(self.map.single(probability) for probability in probabilities)


class Calibration(WeightsBoundFile):
    """The content of calibration.json."""

    FILE = CALIBRATION_FILE
    KIND = "a calibration that this version reads"
    MADE = "fitted to"
    REMEDY = "calibrate this checkpoint"

    classification: tuple[LabelCalibration, ...] | LabelCalibration | None = None
    """One for each set of labels. A single one is of an earlier version and bound to no set: it is not applied."""
    answers: AnswerCalibration | None = None
    prediction_sets: tuple[PredictionSets, ...] = ()
    """One for each set of labels and number format."""

    @property
    def label_sets(self) -> tuple[LabelCalibration, ...]:
        """Return the calibrations that are bound to a set of labels."""
        return self.classification if isinstance(self.classification, tuple) else ()

    @property
    def known_label_sets(self) -> frozenset[tuple[str, ...]]:
        """Return the sets of labels that it has a map or prediction sets for."""
        return frozenset({one.labels for one in self.label_sets} | {one.labels for one in self.prediction_sets})

    @property
    def of_answers(self) -> Self:
        """Return it with the calibration of answers alone."""
        return self.model_copy(update={"classification": None, "prediction_sets": ()})

    def holding(self, *, prompt_sha256: str, dtype: Dtype | None) -> Self:
        """Return it without the maps and prediction sets that do not apply to this prompt and number format."""
        maps = tuple(fit for fit in self.label_sets if fit.applies(prompt_sha256=prompt_sha256, dtype=dtype))
        of_answers = self.answers
        if of_answers is not None and not of_answers.applies(prompt_sha256=prompt_sha256, dtype=dtype):
            of_answers = None
        sets = tuple(
            one for one in self.prediction_sets if one.bound_to.holds(prompt_sha256=prompt_sha256, dtype=dtype)
        )
        return self.model_copy(update={"classification": maps or None, "answers": of_answers, "prediction_sets": sets})

    def for_labels(self, labels: Iterable[str]) -> LabelCalibration | None:
        """Return the calibration that was fitted on this set of labels, in any order."""
        wanted = frozenset(labels)
        return next((fit for fit in self.label_sets if frozenset(fit.labels) == wanted), None)


def _normalised(weights: Sequence[float]) -> tuple[float, ...]:
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)
