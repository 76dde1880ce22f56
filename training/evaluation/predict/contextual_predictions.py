"""Calibrate predicted label probabilities contextually, as the service does on request."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from medmoe.model.classification.contextual_calibration import (
    content_free_images,
    contextually_calibrated,
    mean_log_likelihoods,
)
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.prediction import Predict, Prediction, of_labels


def contextual(predict: Predict, *, folder: Path, size: int) -> Predict:
    """Return `predict` with contextually calibrated probabilities of labels.

    Writes content-free images of `size` x `size` pixels to `folder`, and predicts each set of labels on them first.
    """
    files = []
    for number, image in enumerate(content_free_images(size)):
        files.append(folder / f"{number}.png")
        image.save(files[-1])

    def mean(sample: Sample) -> tuple[float, ...]:
        blank = [replace(sample, id=file.name, image=file) for file in files]
        return mean_log_likelihoods([_log_shares(prediction, sample.labels) for prediction in predict(blank)])

    def calibrated(samples: Sequence[Sample]) -> Iterator[Prediction]:
        classified = {sample.id: sample for sample in samples if sample.kind == "classification"}
        means = {labels: mean(sample) for labels, sample in {one.labels: one for one in classified.values()}.items()}
        for prediction in predict(samples):
            sample = classified.get(prediction.id)
            if sample is None:
                yield prediction
                continue
            labels = sample.labels
            scores = contextually_calibrated(_log_shares(prediction, labels), means[labels])
            yield of_labels(prediction.id, dict(zip(labels, scores, strict=True)), routing=prediction.routing)

    return calibrated


def _log_shares(prediction: Prediction, labels: Sequence[str]) -> list[float]:
    """Return the log-likelihoods of the labels up to a constant."""
    shares = prediction.probabilities or {}
    return [math.log(max(shares[label], sys.float_info.min)) for label in labels]
