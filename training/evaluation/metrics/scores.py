"""Score a set of samples by every metric, with intervals. Predictions are looked up by id, never by position."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from medmoe.training.data.sample import AnswerType, Sample
from medmoe.training.evaluation.metrics.auc import macro_auc
from medmoe.training.evaluation.metrics.interval import Interval, mean_interval, share_interval, statistic_interval
from medmoe.training.evaluation.metrics.vqa_metrics import (
    bleu,
    closed_accuracy_substring,
    exact_match_share,
    open_f1,
    open_precision,
    open_recall,
    strict_accuracy,
)
from medmoe.training.evaluation.prediction import Prediction

Scores = dict[str, Interval]
_SHARES = {"closed_accuracy_legacy", "closed_accuracy_strict", "open_accuracy_strict"}
"""Metrics that are 0 or 1 for each question."""
_SMALLEST = 1e-12
"""A probability of 0 for what happened would make a mean of logarithms infinite."""


class _Metric(Protocol):
    def __call__(self, prediction: str, *, reference: str) -> float: ...


# "legacy" is upstream's definition, for comparison with the paper's tables; "strict" is what a reader expects.
_VQA_METRICS: dict[str, tuple[AnswerType, _Metric]] = {
    "closed_accuracy_legacy": ("closed", closed_accuracy_substring),
    "closed_accuracy_strict": ("closed", strict_accuracy),
    "closed_recall_legacy": ("closed", open_recall),
    "closed_precision_legacy": ("closed", open_precision),
    "closed_f1_legacy": ("closed", open_f1),
    "open_recall_legacy": ("open", open_recall),
    "open_precision_legacy": ("open", open_precision),
    "open_f1_legacy": ("open", open_f1),
    "open_exact_match_share_legacy": ("open", exact_match_share),
    "open_bleu_1_legacy": ("open", partial(bleu, n=1)),
    "open_bleu_2_legacy": ("open", partial(bleu, n=2)),
    "open_bleu_3_legacy": ("open", partial(bleu, n=3)),
    "open_accuracy_strict": ("open", strict_accuracy),
}


def is_correct(sample: Sample, prediction: Prediction) -> bool:
    """Return whether a label is the true one, or an answer equals the reference after normalisation of both."""
    if sample.kind == "classification":
        return prediction.text == sample.answer
    return strict_accuracy(prediction.text, reference=sample.answer) == 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """Score samples with intervals; the same seed gives the same intervals."""

    seed: int = 0
    resamples: int = 1000

    def __call__(self, samples: Sequence[Sample], *, predictions: Mapping[str, Prediction]) -> Scores:
        """Score `samples`, at least one and all of one kind."""
        score = self._classification if samples[0].kind == "classification" else self._vqa
        return score(samples, predictions)

    def _vqa(self, samples: Sequence[Sample], predictions: Mapping[str, Prediction]) -> Scores:
        """Return each metric over the questions of its answer type; a metric without questions is left out.

        `confidence_brier` and `confidence_nll` (nats) take the confidence as the probability that the answer is right.
        """
        scores: Scores = {}
        for name, (answer_type, metric) in _VQA_METRICS.items():
            chosen = [sample for sample in samples if sample.answer_type == answer_type]
            if chosen:
                values = [metric(predictions[sample.id].text, reference=sample.answer) for sample in chosen]
                scores[name] = (self._share if name in _SHARES else self._mean)(values, samples=chosen)
        said = [predictions[sample.id].confidence for sample in samples]
        known = [p for p in said if p is not None]
        if len(known) == len(samples):
            right = [is_correct(sample, predictions[sample.id]) for sample in samples]
            pairs = list(zip(known, right, strict=True))
            scores["confidence_brier"] = self._mean([(p - ok) ** 2 for p, ok in pairs], samples=samples)
            scores["confidence_nll"] = self._mean([_nll(p if ok else 1 - p) for p, ok in pairs], samples=samples)
        return scores

    def _classification(self, samples: Sequence[Sample], predictions: Mapping[str, Prediction]) -> Scores:
        """Return `accuracy`; where probabilities are known `auc` (one against the rest, macro; with two labels the
        binary one), `brier` (sum over labels, 0 to 2) and `nll` (nats).
        """
        correct = [float(is_correct(sample, predictions[sample.id])) for sample in samples]
        scores = {"accuracy": self._share(correct, samples=samples)}
        found = [(sample, predictions[sample.id].probabilities) for sample in samples]
        known = [(sample, shares) for sample, shares in found if shares is not None]
        if len(known) < len(samples):
            return scores
        labels = {label: place for place, label in enumerate(sorted({name for s in samples for name in s.labels}))}
        table = np.full((len(samples), len(labels)), np.nan)
        for row, (_, shares) in enumerate(known):
            for label, p in shares.items():
                table[row, labels[label]] = p
        truth = np.array([labels[sample.answer] for sample in samples])
        if not math.isnan(macro_auc(table, truth)):
            scores["auc"] = statistic_interval(
                lambda drawn: macro_auc(table[drawn], truth[drawn]),
                clusters=[sample.cluster for sample in samples],
                seed=self.seed,
                resamples=self.resamples,
            )
        brier = [sum((p - (label == s.answer)) ** 2 for label, p in shares.items()) for s, shares in known]
        scores["brier"] = self._mean(brier, samples=samples)
        scores["nll"] = self._mean([_nll(shares[s.answer]) for s, shares in known], samples=samples)
        return scores

    def _share(self, values: Sequence[float], *, samples: Sequence[Sample]) -> Interval:
        return share_interval([value == 1 for value in values], clusters=[sample.cluster for sample in samples])

    def _mean(self, values: Sequence[float], *, samples: Sequence[Sample]) -> Interval:
        clusters = [sample.cluster for sample in samples]
        return mean_interval(values, clusters=clusters, seed=self.seed, resamples=self.resamples)


def _nll(probability: float) -> float:
    return -math.log(max(probability, _SMALLEST))
