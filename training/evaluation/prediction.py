"""Define a prediction of a model for one sample."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from medmoe.training.data.sample import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRouting:
    """Count the experts of one prompt's tokens, image and words alike, without answer tokens."""

    expert_domains: tuple[str, ...]
    """Name of each expert; empty where the checkpoint knows none."""
    layers: Mapping[int, tuple[int, ...]]
    """For each MoE layer: tokens by expert."""
    image: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """The image's tokens alone; empty where they were not told apart."""


def joined(one: PromptRouting | None, other: PromptRouting | None) -> PromptRouting | None:
    """Return the routing of two parts of a prompt as that of the whole; None of a dense model."""
    if one is None or other is None:
        return None
    return PromptRouting(
        expert_domains=one.expert_domains,
        layers=_summed(one.layers, other.layers),
        image=_summed(one.image, other.image),
    )


def _summed(one: Mapping[int, tuple[int, ...]], other: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    return {
        layer: tuple(left + right for left, right in zip(counts, other[layer], strict=True))
        for layer, counts in one.items()
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Hold an answer's text, or the likeliest label, and the model's confidence."""

    id: str
    text: str
    confidence: float | None = None
    """Probability of exactly this answer (end-of-sequence included, unless it was cut), or of this label."""
    probabilities: Mapping[str, float] | None = None
    """Probability of every label offered; they sum to 1. None for questions."""
    cut: bool = False
    """The answer had no end within the permitted tokens."""
    routing: PromptRouting | None = None


def by_id(predictions: Iterable[Prediction]) -> dict[str, Prediction]:
    """Return the predictions by the ids of their samples."""
    return {prediction.id: prediction for prediction in predictions}


Predict = Callable[[Sequence[Sample]], Iterable[Prediction]]
"""One prediction for each sample, in any order."""


def of_labels(id_: str, log_likelihoods: Mapping[str, float], *, routing: PromptRouting | None) -> Prediction:
    """Return the likeliest label; natural logarithms in, shares of the label set out. The first of equals wins."""
    highest = max(log_likelihoods.values())
    weights = {label: math.exp(value - highest) for label, value in log_likelihoods.items()}
    total = math.fsum(weights.values())
    shares = {label: weight / total for label, weight in weights.items()}
    best = max(shares, key=lambda label: shares[label])
    return Prediction(id=id_, text=best, confidence=shares[best], probabilities=shares, routing=routing)
