"""Measure a model on held-out samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.data.batches.collator import Collator, moved
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.metrics.interval import Interval
from medmoe.training.evaluation.metrics.scores import Scorer
from medmoe.training.evaluation.predict.predictors import LocalPredictor
from medmoe.training.evaluation.prediction import Prediction, by_id
from medmoe.training.evaluation.report.markdown_table import percent, table
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.finetune.replay import RunSamples
from medmoe.training.optimization.distributed import own_device
from medmoe.training.optimization.loss import answer_logits
from medmoe.training.precision import fast_autocast

_BATCH = 8
_LEAST_PROBABILITY = 1e-9
_TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
_SHOWN = {
    "accuracy": "accuracy of labels",
    "auc": "AUC of labels",
    "closed_accuracy_strict": "accuracy of closed questions",
    "open_accuracy_strict": "accuracy of open questions",
    "open_recall_legacy": "word recall of open questions",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Hold scores by metric, with 95 % intervals over groups of images."""

    scores: Mapping[str, Interval]

    @classmethod
    def of(cls, samples: Sequence[Sample], predictions: Sequence[Prediction], *, seed: int) -> "Measurement":
        """Score `predictions` of `samples`."""
        known = by_id(predictions)
        found: dict[str, Interval] = {}
        for kind in ("classification", "vqa"):
            if chosen := [sample for sample in samples if sample.kind == kind]:
                found |= Scorer(seed=seed)(chosen, predictions=known)
        return cls(scores={name: found[name] for name in _SHOWN if name in found})


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Hold the measures by which the rounds of a training are compared."""

    loss: float
    """Mean negative log-probability: of a label among its labels, at the temperature where it is lowest, as calibration
    will choose one; and of an answer's token. In nats."""
    accuracy: float
    """Share of the label samples that are classified right; 1 without any."""

    @classmethod
    def of(
        cls, model: MedMoE, samples: Sequence[Sample], predictions: Sequence[Prediction], *, collator: Collator
    ) -> "Quality":
        """Measure `model`; `predictions` are its own, of the label samples at least."""
        known = by_id(predictions)
        labelled = [sample for sample in samples if sample.kind == "classification"]
        questions = [sample for sample in samples if sample.kind == "vqa"]
        loss = _label_loss(labelled, known)
        right = sum(known[sample.id].text == sample.answer for sample in labelled)
        if questions:
            loss += len(questions) * mean_loss(model, questions, collator=collator)
        return cls(loss=loss / max(len(samples), 1), accuracy=right / len(labelled) if labelled else 1.0)


def _label_loss(samples: Sequence[Sample], predictions: Mapping[str, Prediction]) -> float:
    """Return the summed negative log-probability of the right labels at the best temperature, in nats."""
    rows = []
    for sample in samples:
        probabilities = predictions[sample.id].probabilities or {}
        log_p = torch.tensor([max(probabilities.get(label, 0.0), _LEAST_PROBABILITY) for label in sample.labels]).log()
        rows.append((log_p, sample.labels.index(sample.answer)))
    return min(
        -sum(float((log_p / temperature).log_softmax(dim=0)[right]) for log_p, right in rows)
        for temperature in _TEMPERATURES
    )


def comparison(
    samples: RunSamples,
    *,
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    probe: Measurement | None,
    seed: int,
) -> str:
    """Return what the training changed as Markdown: tables of scores, and how many other answers stayed the same."""

    def measured(some: Sequence[Sample]) -> dict[str, Measurement]:
        return {
            "before": Measurement.of(some, before, seed=seed),
            "after": Measurement.of(some, after, seed=seed),
        }

    probed = {} if probe is None else {"linear probe": probe}
    parts = [_score_table(measured(samples.split.test) | probed, measured_on="the test split")]
    if kept := samples.others.measured:
        texts = {prediction.id: prediction.text for prediction in after}
        same = sum(texts[sample.id] == sample.answer for sample in kept)
        parts.append(f"{same} of {len(kept)} answers to other questions about the test images stayed as they were.")
    if samples.replay.measured:
        parts.append(_score_table(measured(samples.replay.measured), measured_on="samples of --replay"))
    return "\n\n".join(parts)


def _score_table(measured: Mapping[str, Measurement], *, measured_on: str) -> str:
    """Return a Markdown table in percent, with intervals, of the scores that are measured after the training."""
    rows = [
        [_SHOWN[name], str(score.n), *(percent(one.scores.get(name)) for one in measured.values())]
        for name, score in measured["after"].scores.items()
    ]
    return table([f"on {measured_on}, in %", "n", *measured], rows)


def quality_on(val: Sequence[Sample], *, prompt: Prompt, features: FeatureCache) -> Callable[[MedMoE], Quality]:
    """Return the measure of a model's quality on the val split."""
    labelled = [sample for sample in val if sample.kind == "classification"]
    collator = Collator(prompt, features=features)
    device = own_device()

    def measure(model: MedMoE) -> Quality:
        predictor = LocalPredictor(model, prompt=prompt, features=features)
        with fast_autocast(device):
            return Quality.of(model, val, list(predictor.predict(labelled)), collator=collator)

    return measure


@torch.inference_mode()
def mean_loss(model: MedMoE, samples: Sequence[Sample], *, collator: Collator) -> float:
    """Return the mean cross-entropy of an answer token, in nats."""
    total, tokens = 0.0, 0
    device = next(model.parameters()).device
    for start in range(0, len(samples), _BATCH):
        batch = collator([(sample,) for sample in samples[start : start + _BATCH]])
        logits, targets = answer_logits(model, moved(batch, device))
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        tokens += len(targets)
    return total / max(tokens, 1)
