"""Count confusions of classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.prediction import Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Count with the true label down and the answered label across, both in `labels` order."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    no_label: tuple[int, ...]
    """Answers, by true label, that are none of the labels: wrong, and worth knowing about."""
    balanced_accuracy: float
    """Mean over the classes present of their recall: 1 / classes for a constant answer, whatever the proportions."""


def confusion(samples: Sequence[Sample], *, predictions: Mapping[str, Prediction]) -> Confusion:
    """Count `predictions` (joined by id) of classification samples; labels are all that any sample offers, sorted."""
    labels = tuple(sorted({label for sample in samples for label in sample.labels}))
    pairs = Counter((sample.answer, predictions[sample.id].text) for sample in samples)
    totals = Counter(sample.answer for sample in samples)
    counts = tuple(tuple(pairs[true, said] for said in labels) for true in labels)
    return Confusion(
        labels=labels,
        counts=counts,
        no_label=tuple(totals[label] - sum(row) for label, row in zip(labels, counts, strict=True)),
        balanced_accuracy=sum(pairs[label, label] / total for label, total in totals.items()) / len(totals),
    )
