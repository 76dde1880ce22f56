"""From predictions on a validation split to calibration.json: split by image, fit on one part, measure on the other."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medmoe.model.files.calibration import AnswerCalibration, Calibration, FittedOn, HeldOut, LabelCalibration, Map
from medmoe.training.config import Split
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.calibration.fit import Method, fit_answers, fit_labels
from medmoe.training.evaluation.evaluator import mapped
from medmoe.training.evaluation.metrics.reliability import reliability
from medmoe.training.evaluation.metrics.scores import Scorer, is_correct
from medmoe.training.evaluation.prediction import Prediction

FEWEST = 20
"""Samples that each part must have, for each kind."""

Predictions = Mapping[str, Prediction]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrator:
    """How a calibration is made."""

    method: Method = "temperature"
    held_out: float = 0.5
    """Share of the images that are kept from the fit, to measure it."""
    seed: int = 0

    def __call__(
        self,
        samples: Sequence[Sample],
        *,
        predictions: Predictions,
        split: Split,
        weights_sha256: str,
        adapter_sha256: str | None = None,
    ) -> Calibration:
        """A map for each kind of sample there is.

        Raises DataError when a part has fewer than `FEWEST` samples or a question's confidence is unknown.
        """
        labels: LabelCalibration | None = None
        answers: AnswerCalibration | None = None
        if shown := [sample for sample in samples if sample.kind == "classification"]:
            fit, rest = self._divided(shown)
            map_ = fit_labels([_labelled(sample, predictions[sample.id]) for sample in fit], method=self.method)
            labels = LabelCalibration(
                map=map_, fitted_on=_fitted_on(fit, split=split), held_out=_held_out(rest, predictions, map_)
            )
        if asked := [sample for sample in samples if sample.kind == "vqa"]:
            fit, rest = self._divided(asked)
            said = [_confidence(predictions[sample.id]) for sample in fit]
            map_ = fit_answers(said, [is_correct(s, predictions[s.id]) for s in fit], method=self.method)
            answers = AnswerCalibration(
                map=map_, fitted_on=_fitted_on(fit, split=split), held_out=_held_out(rest, predictions, map_)
            )
        if labels is None and answers is None:
            raise DataError("nothing to calibrate: neither questions nor classifications")
        return Calibration(
            weights_sha256=weights_sha256, adapter_sha256=adapter_sha256, classification=labels, answers=answers
        )

    def check_counts(self, samples: Sequence[Sample]) -> None:
        """Raise DataError when there are too few samples of a kind to fit and to measure; needs no prediction."""
        for kind in ("classification", "vqa"):
            if of_kind := [sample for sample in samples if sample.kind == kind]:
                self._divided(of_kind)

    def _divided(self, samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
        """By image: questions about one picture are right and wrong together."""
        images = sorted({sample.image for sample in samples})
        random.Random(self.seed).shuffle(images)
        kept = set(images[: round(len(images) * self.held_out)])
        fit = [sample for sample in samples if sample.image not in kept]
        rest = [sample for sample in samples if sample.image in kept]
        if min(len(fit), len(rest)) < FEWEST:
            raise DataError(
                f"{len(fit)} {samples[0].kind} samples to fit and {len(rest)} to measure are too few; "
                f"each part needs {FEWEST}"
            )
        return fit, rest


def only_helpful(calibration: Calibration) -> Calibration:
    """Without the maps that made held-out samples less likely: the model's own probabilities are better than those."""
    labels, answers = calibration.classification, calibration.answers
    return calibration.model_copy(
        update={
            "classification": labels if labels is not None and labels.helps else None,
            "answers": answers if answers is not None and answers.helps else None,
        }
    )


def _labelled(sample: Sample, prediction: Prediction) -> tuple[list[float], int]:
    assert prediction.probabilities is not None
    return [prediction.probabilities[label] for label in sample.labels], sample.labels.index(sample.answer)


def _confidence(prediction: Prediction) -> float:
    if prediction.confidence is None:
        raise DataError(f"sample {prediction.id} was answered without a confidence")
    return prediction.confidence


def _fitted_on(samples: Sequence[Sample], *, split: Split) -> FittedOn:
    return FittedOn(datasets=tuple(sorted({sample.dataset for sample in samples})), split=split, n=len(samples))


def _held_out(samples: Sequence[Sample], predictions: Predictions, map_: Map) -> HeldOut:
    before = {sample.id: predictions[sample.id] for sample in samples}
    after = {id_: mapped(prediction, map_) for id_, prediction in before.items()}
    (ece_before, nll_before), (ece_after, nll_after) = _measured(samples, before), _measured(samples, after)
    return HeldOut(
        n=len(samples), ece_before=ece_before, ece_after=ece_after, nll_before=nll_before, nll_after=nll_after
    )


def _measured(samples: Sequence[Sample], predictions: Predictions) -> tuple[float, float]:
    said = [_confidence(predictions[sample.id]) for sample in samples]
    right = [is_correct(sample, predictions[sample.id]) for sample in samples]
    scores = Scorer(resamples=1)(samples, predictions=predictions)
    nll = scores["nll" if samples[0].kind == "classification" else "confidence_nll"].value
    return reliability(said, right).ece_equal_mass, nll
