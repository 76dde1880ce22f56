"""What the model scores on held-out samples, and how well it predicts them token by token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from medmoe.model.medmoe import MedMoE
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.metrics.interval import Interval
from medmoe.training.evaluation.metrics.scores import Scorer
from medmoe.training.evaluation.prediction import Prediction
from medmoe.training.evaluation.report.markdown_table import percent, table
from medmoe.training.optimization.loss import answer_logits

_BATCH = 8
_SHOWN = {
    "accuracy": "accuracy of labels",
    "auc": "AUC of labels",
    "closed_accuracy_strict": "accuracy of closed questions",
    "open_accuracy_strict": "accuracy of open questions",
    "open_recall_legacy": "word recall of open questions",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Scores on the test split by metric, with 95 % bootstrap intervals over images."""

    scores: Mapping[str, Interval]

    @classmethod
    def of(cls, samples: Sequence[Sample], predictions: Sequence[Prediction], *, seed: int) -> "Measurement":
        by_id = {prediction.id: prediction for prediction in predictions}
        found: dict[str, Interval] = {}
        for kind in ("classification", "vqa"):
            if chosen := [sample for sample in samples if sample.kind == kind]:
                found |= Scorer(seed=seed)(chosen, predictions=by_id)
        return cls(scores={name: found[name] for name in _SHOWN if name in found})


def comparison(before: Measurement, after: Measurement) -> str:
    """Return a Markdown table of both, in percent with intervals."""
    rows = [
        [_SHOWN[name], str(score.n), percent(before.scores.get(name)), percent(score)]
        for name, score in after.scores.items()
    ]
    return table(["on the test split, in %", "n", "before", "after"], rows)


@torch.inference_mode()
def mean_loss(model: MedMoE, samples: Sequence[Sample], *, collator: Collator) -> float:
    """Return the mean cross-entropy of an answer token, in nats."""
    total, tokens = 0.0, 0
    for start in range(0, len(samples), _BATCH):
        logits, targets = answer_logits(model, collator([(sample,) for sample in samples[start : start + _BATCH]]))
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        tokens += len(targets)
    return total / max(tokens, 1)
