"""Compute label probabilities from the log-likelihoods that medmoe.server.engine.scoring.label_scorer returns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from medmoe.model.classification.contextual_calibration import contextually_calibrated, mean_log_likelihoods
from medmoe.model.files.calibration import LabelCalibration
from medmoe.server.engine.base import GenerationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Classification:
    """The probabilities of labels that exclude each other, in the order of the labels."""

    log_likelihoods: tuple[float, ...]
    probabilities: tuple[float, ...]
    best: int
    label_mass: float
    entropy: float
    """Nats."""
    margin: float

    def calibrated(self, calibration: LabelCalibration) -> Self:
        """Return it with calibrated probabilities; the likelihoods and the best label stay the model's."""
        probabilities = calibration.apply(self.probabilities)
        entropy, margin = spread(probabilities)
        return replace(self, probabilities=probabilities, entropy=entropy, margin=margin)


@dataclass(frozen=True, kw_only=True, slots=True)
class Presence:
    """The probability of one label on its own."""

    probability: float
    """Probability of yes among yes and no."""
    label_mass: float
    """Probability of yes and no together."""
    entropy: float
    """Nats."""
    margin: float

    @property
    def confidence(self) -> float:
        """Return the probability of the likelier of yes and no."""
        return max(self.probability, 1 - self.probability)


def by_likelihood(
    log_likelihoods: Sequence[float],
    *,
    lengths: Sequence[int] | None = None,
    content_free: Sequence[float] | None = None,
) -> Classification:
    """Normalize the labels' likelihoods; with `lengths`, in tokens, the geometric means over their tokens.

    With `content_free`, the labels' mean log-likelihoods on content-free images, they are contextually calibrated.
    Raises GenerationError when no likelihood is finite.
    """
    scores = _per_token(log_likelihoods, lengths)
    if content_free is not None:
        scores = contextually_calibrated(scores, _per_token(content_free, lengths))
    return _decide(scores, log_likelihoods=log_likelihoods, label_mass=_mass(log_likelihoods))


def by_choice(rotations: Sequence[Sequence[float]]) -> Classification:
    """Normalize the mean log-likelihood of each label; `rotations[r][label]` is that of its letter in rotation r.

    A preference for a letter is a factor of its likelihood. When every label has had every letter once, all means
    contain the same sum of these factors' logarithms, and normalization removes it. Means of probabilities would keep
    it. Raises GenerationError when no mean is finite.
    """
    means = mean_log_likelihoods(rotations)
    mass = math.fsum(_mass(rotation) for rotation in rotations) / len(rotations)
    return _decide(means, log_likelihoods=means, label_mass=mass)


def agreement(rotations: Sequence[Sequence[float]], *, best: int) -> float:
    """Return the share of `rotations` in which no label is likelier than `best`."""
    return sum(rotation[best] >= max(rotation) for rotation in rotations) / len(rotations)


def by_presence(yes: Sequence[float], no: Sequence[float]) -> Presence:
    """Compare the log-likelihoods of all spellings of yes and of no. Raises as by_likelihood does."""
    found = by_likelihood((_log_sum(yes), _log_sum(no)))
    return Presence(
        probability=found.probabilities[0], label_mass=found.label_mass, entropy=found.entropy, margin=found.margin
    )


def spread(probabilities: Sequence[float]) -> tuple[float, float]:
    """Return the entropy in nats and the difference of the two largest probabilities."""
    first, second = sorted(probabilities, reverse=True)[:2]
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0) + 0.0, first - second


def _decide(scores: Sequence[float], *, log_likelihoods: Sequence[float], label_mass: float) -> Classification:
    highest = max(scores)
    if not math.isfinite(highest):
        raise GenerationError("the engine returned log-probabilities that are not finite")
    weights = [math.exp(value - highest) for value in scores]
    total = math.fsum(weights)
    probabilities = tuple(weight / total for weight in weights)
    entropy, margin = spread(probabilities)
    return Classification(
        log_likelihoods=tuple(log_likelihoods),
        probabilities=probabilities,
        best=probabilities.index(max(probabilities)),
        label_mass=label_mass,
        entropy=entropy,
        margin=margin,
    )


def _per_token(log_likelihoods: Sequence[float], lengths: Sequence[int] | None) -> Sequence[float]:
    if lengths is None:
        return log_likelihoods
    return [value / length for value, length in zip(log_likelihoods, lengths, strict=True)]


def _mass(log_likelihoods: Sequence[float]) -> float:
    return math.fsum(math.exp(value) for value in log_likelihoods)


def _log_sum(values: Sequence[float]) -> float:
    highest = max(values)
    if not math.isfinite(highest):
        return highest
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))
