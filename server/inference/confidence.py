"""Compute the confidence of a generated answer, and decide which answers to mark as abstained.

An abstained answer is marked and not withheld: a stream has sent it before its confidence is known.
"""

import math
from collections.abc import Sequence

from medmoe.model.files.calibration import AnswerCalibration
from medmoe.model.unlike_training.reference import TrainingReference
from medmoe.server.schemas.inference import UnlikeTraining
from medmoe.server.schemas.vqa import Confidence
from medmoe.server.settings import Settings


def answer_confidence(
    logprobs: Sequence[float], *, calibration: AnswerCalibration | None, greedy: bool, complete: bool
) -> Confidence | None:
    """Return the probability of an answer with these token log-probabilities; None for an answer without tokens.

    It is calibrated for greedy answers that were not cut by length: the calibration was fitted to those.
    """
    if not logprobs:
        return None
    probability = math.exp(math.fsum(logprobs))
    if calibration is None or not (greedy and complete):
        return Confidence(value=probability, calibrated=False)
    return Confidence(value=calibration.apply((min(probability, 1.0),))[0], calibrated=True)


def compare_with_training(score: float | None, reference: TrainingReference | None) -> UnlikeTraining | None:
    """Return what an image's score means by the checkpoint's reference; None where there is no reference."""
    if score is None or reference is None:
        return None
    return UnlikeTraining(score=score, threshold=reference.threshold, flagged=score > reference.threshold)


def is_flagged(unlike_training: UnlikeTraining | None) -> bool:
    """Return whether the image is known to be unlike the training images."""
    return unlike_training is not None and unlike_training.flagged


def confidence_threshold(requested: float | None, settings: Settings) -> float | None:
    """Return the request's own `min_confidence`, or the deployment's; None where no answer is marked."""
    return settings.min_confidence if requested is None else requested


def abstains(confidence: float | None, *, threshold: float | None) -> bool:
    """Return whether `confidence` is under `threshold`; None is the lowest confidence."""
    return threshold is not None and (0.0 if confidence is None else confidence) < threshold
