"""Every metric over a set of samples, as means with intervals. Answers are looked up by id, never by position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from medmoe.training.data.sample import AnswerType, Sample
from medmoe.training.evaluation.interval import Interval, mean_interval
from medmoe.training.evaluation.vqa_metrics import (
    bleu,
    closed_accuracy_substring,
    exact_match_share,
    open_f1,
    open_precision,
    open_recall,
    strict_accuracy,
)

Scores = dict[str, Interval]


class _Metric(Protocol):
    def __call__(self, prediction: str, *, reference: str) -> float: ...


# "legacy" is upstream's definition, for comparison with the paper's tables; "strict" is what a reader expects.
_VQA_METRICS: dict[str, tuple[AnswerType, _Metric]] = {
    "closed_accuracy_legacy": ("closed", closed_accuracy_substring),
    "closed_accuracy_strict": ("closed", strict_accuracy),
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """How intervals are drawn; the same seed gives the same report."""

    seed: int = 0
    resamples: int = 1000

    def vqa(self, samples: Sequence[Sample], *, answers: Mapping[str, str]) -> Scores:
        """Each metric over the questions of its answer type; a metric without questions is left out."""
        scores: Scores = {}
        for name, (answer_type, metric) in _VQA_METRICS.items():
            chosen = [sample for sample in samples if sample.answer_type == answer_type]
            if chosen:
                values = [metric(answers[sample.id], reference=sample.answer) for sample in chosen]
                scores[name] = self._mean(values, samples=chosen)
        return scores

    def classification(self, samples: Sequence[Sample], *, answers: Mapping[str, str]) -> Scores:
        """`accuracy`: the share of samples whose answer is their label, exactly."""
        values = [float(answers[sample.id] == sample.answer) for sample in samples]
        return {"accuracy": self._mean(values, samples=samples)}

    def _mean(self, values: Sequence[float], *, samples: Sequence[Sample]) -> Interval:
        clusters = [sample.image for sample in samples]
        return mean_interval(values, clusters=clusters, seed=self.seed, resamples=self.resamples)
