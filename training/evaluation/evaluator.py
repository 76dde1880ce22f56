"""Evaluate a predictor on data, for the command and for a run's model card alike."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from medmoe.model.files.calibration import AnswerCalibration, Calibration, LabelCalibration, Map
from medmoe.training.data.batches.collator import Features
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.evaluation_data import EvaluationData
from medmoe.training.evaluation.metrics.scores import Scorer
from medmoe.training.evaluation.predict.linear_probe import probe_predictions
from medmoe.training.evaluation.prediction import Predict, Prediction, by_id
from medmoe.training.evaluation.report.report import Report, build_report

_GREY = (128, 128, 128)
_SIDE = 256


def evaluate_predictor(
    data: EvaluationData,
    predict: Predict,
    *,
    blank_images: bool,
    calibration: Calibration | None = None,
    apply: bool = False,
    tower: Features | None = None,
    scorer: Scorer | None = None,
) -> Report:
    """Answer `data` and score it. Raises what `predict` raises, and DataError as `build_report` does.

    `blank_images` asks everything once more about a mid-grey square, as a baseline: what the questions (and the labels
    offered) give away. `calibration` is told beside the model's own probabilities; with `apply` it replaces them, in
    every figure. Answers stay. `tower` gives an image's tower features: a linear probe on them is told beside.
    """
    predictions = by_id(predict(data.samples))
    beside: dict[str, Prediction] = {}
    if calibration is not None:
        through = {id_: calibrated(prediction, calibration) for id_, prediction in predictions.items()}
        if apply:
            predictions = through
        else:
            # What has no map comes back as it was, and would stand there as calibrated.
            beside = {id_: found for id_, found in through.items() if found is not predictions[id_]}
    return build_report(
        data.samples,
        predictions=predictions,
        without_image=_without_image(data.samples, predict) if blank_images else None,
        calibrated=beside,
        probe=None
        if tower is None
        else probe_predictions(data.samples, train=data.train, val=data.val, features=tower),
        train=data.train,
        shared=data.shared,
        scorer=scorer,
    )


def calibrated(prediction: Prediction, calibration: Calibration) -> Prediction:
    """Return a prediction with calibrated probabilities where the calibration has a map for its kind."""
    if prediction.probabilities is None:
        found: LabelCalibration | AnswerCalibration | None = calibration.answers
    else:
        found = calibration.for_labels(prediction.probabilities)
    return prediction if found is None else mapped(prediction, found.map)


def mapped(prediction: Prediction, map_: Map) -> Prediction:
    """Return a prediction with its probabilities mapped by `map_`; the text is never changed."""
    if prediction.probabilities is not None:
        labels, shares = zip(*prediction.probabilities.items(), strict=True)
        found = dict(zip(labels, map_.labels(shares), strict=True))
        return replace(prediction, probabilities=found, confidence=found[prediction.text])
    if prediction.confidence is not None:
        return replace(prediction, confidence=map_.single(prediction.confidence))
    return prediction


def _without_image(samples: Sequence[Sample], predict: Predict) -> dict[str, Prediction]:
    with tempfile.TemporaryDirectory() as directory:
        # One square for all: even an image's shape can give its modality away.
        blank = Path(directory) / "blank.png"
        Image.new("RGB", (_SIDE, _SIDE), _GREY).save(blank)
        # Without the image, samples that ask the same are the same: asked once, they cannot differ in the last bits,
        # which an AUC would take for knowledge.
        first = {_asked(sample): replace(sample, image=blank) for sample in reversed(samples)}
        found = by_id(predict(list(first.values())))
    return {sample.id: replace(found[first[_asked(sample)].id], id=sample.id) for sample in samples}


def _asked(sample: Sample) -> tuple[str | None, tuple[str, ...]]:
    return sample.question, sample.labels
