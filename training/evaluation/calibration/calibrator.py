"""Make calibration.json from predictions on a val split: divide by cluster, fit on one part, measure on the other."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medmoe.model.files.calibration import AnswerCalibration, Calibration, HeldOut, LabelCalibration, Map
from medmoe.model.files.calibration_binding import BoundTo, Dtype
from medmoe.training.config import Split
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.calibration.fit import Method, fit_answers, fit_labels
from medmoe.training.evaluation.calibration.label_sets import fitted_on, label_sets
from medmoe.training.evaluation.evaluator import mapped
from medmoe.training.evaluation.metrics.reliability import reliability
from medmoe.training.evaluation.metrics.scores import Scorer, is_correct
from medmoe.training.evaluation.prediction import Prediction

FEWEST = 20
"""Samples that each part must have, for each kind."""

Predictions = Mapping[str, Prediction]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrator:
    """Configure and make a calibration."""

    method: Method = "temperature"
    held_out: float = 0.5
    """Share of the clusters (images, or patients) that are kept from the fit, to measure it."""
    seed: int = 0

    def __call__(
        self,
        samples: Sequence[Sample],
        *,
        predictions: Mapping[Dtype, Predictions],
        split: Split,
        weights_sha256: str,
        adapter_sha256: str | None = None,
        prompt_sha256: str,
    ) -> Calibration:
        """Return a map for each set of labels that there is enough of, and one for the answers to questions.

        `predictions` in each number format that the maps are to hold for; they are fitted in the first. Raises
        DataError when no part has `FEWEST` samples or a question's confidence is unknown.
        """
        first = next(iter(predictions.values()))
        labels = []
        for names, shown in label_sets(samples).items():
            if not self.is_enough(shown):
                continue
            fit, rest = self._divided(shown)
            map_ = fit_labels([_labelled(sample, first[sample.id]) for sample in fit], method=self.method)
            held_out, dtypes = _held_out(rest, predictions, map_)
            labels.append(
                LabelCalibration(
                    labels=names,
                    map=map_,
                    bound_to=BoundTo(prompt_sha256=prompt_sha256, dtypes=dtypes),
                    fitted_on=fitted_on(fit, split=split),
                    held_out=held_out,
                )
            )
        answers: AnswerCalibration | None = None
        if asked := [sample for sample in samples if sample.kind == "vqa"]:
            fit, rest = self._divided(asked)
            said = [_confidence(first[sample.id]) for sample in fit]
            map_ = fit_answers(said, [is_correct(s, first[s.id]) for s in fit], method=self.method)
            held_out, dtypes = _held_out(rest, predictions, map_)
            answers = AnswerCalibration(
                map=map_,
                bound_to=BoundTo(prompt_sha256=prompt_sha256, dtypes=dtypes),
                fitted_on=fitted_on(fit, split=split),
                held_out=held_out,
            )
        if not labels and answers is None:
            raise DataError("nothing to calibrate: neither questions nor a set of labels with enough samples")
        return Calibration(
            weights_sha256=weights_sha256,
            adapter_sha256=adapter_sha256,
            classification=tuple(labels) or None,
            answers=answers,
        )

    def check_counts(self, samples: Sequence[Sample]) -> None:
        """Raise DataError when there are too few samples to fit and to measure; needs no prediction."""
        if asked := [sample for sample in samples if sample.kind == "vqa"]:
            self._divided(asked)
        sets = label_sets(samples)
        if sets and not any(self.is_enough(shown) for shown in sets.values()):
            self._divided(max(sets.values(), key=len))

    def is_enough(self, samples: Sequence[Sample]) -> bool:
        """Return whether samples of one kind, at least one, can be divided into two parts of `FEWEST`."""
        try:
            self._divided(samples)
        except DataError:
            return False
        return True

    def _divided(self, samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
        """Divide by cluster: its samples are right and wrong together."""
        ordered = sorted(samples, key=lambda sample: sample.image)
        clusters = list(dict.fromkeys(sample.cluster for sample in ordered))
        random.Random(self.seed).shuffle(clusters)
        kept = set(clusters[: round(len(clusters) * self.held_out)])
        fit = [sample for sample in samples if sample.cluster not in kept]
        rest = [sample for sample in samples if sample.cluster in kept]
        if min(len(fit), len(rest)) < FEWEST:
            raise DataError(
                f"{len(fit)} {samples[0].kind} samples to fit and {len(rest)} to measure are too few; "
                f"each part needs {FEWEST}"
            )
        return fit, rest


def only_helpful(calibration: Calibration) -> Calibration:
    """Return the calibration without the maps that did not lower both errors on held-out samples."""
    labels, answers = tuple(fit for fit in calibration.label_sets if fit.helps), calibration.answers
    return calibration.model_copy(
        update={
            "classification": labels or None,
            "answers": answers if answers is not None and answers.helps else None,
        }
    )


def _labelled(sample: Sample, prediction: Prediction) -> tuple[list[float], int]:
    """Return the probabilities in the order of the labels, and the index of the true one."""
    assert prediction.probabilities is not None
    return [prediction.probabilities[label] for label in sample.labels], sample.labels.index(sample.answer)


def _confidence(prediction: Prediction) -> float:
    if prediction.confidence is None:
        raise DataError(f"sample {prediction.id} was answered without a confidence")
    return prediction.confidence


def _held_out(
    samples: Sequence[Sample], predictions: Mapping[Dtype, Predictions], map_: Map
) -> tuple[HeldOut, tuple[Dtype, ...]]:
    """Return the errors in the first number format in which the map helps, with all such formats; else of the first."""
    errors = {dtype: _errors(samples, found, map_) for dtype, found in predictions.items()}
    dtypes = tuple(dtype for dtype, found in errors.items() if found.helps) or tuple(errors)[:1]
    return errors[dtypes[0]], dtypes


def _errors(samples: Sequence[Sample], predictions: Predictions, map_: Map) -> HeldOut:
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
