"""Which modality's prompts went to which experts, over a whole evaluation."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.prediction import Prediction

_UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutingTable:
    """Prompt tokens, image and words alike; empty for a dense model."""

    expert_domains: tuple[str, ...]
    """Name of each expert; empty where the checkpoint knows none."""
    tokens: dict[str, dict[int, tuple[int, ...]]]
    """By modality: for each MoE layer the tokens by expert."""

    @property
    def num_experts(self) -> int:
        return max((len(counts) for layers in self.tokens.values() for counts in layers.values()), default=0)


def routing_table(samples: Sequence[Sample], *, predictions: Mapping[str, Prediction]) -> RoutingTable:
    """Sums the predictions' routing by their samples' modality."""
    totals: defaultdict[str, defaultdict[int, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    domains: tuple[str, ...] = ()
    experts = 0
    for sample in samples:
        found = predictions[sample.id].routing
        if found is None:
            continue
        domains = found.expert_domains
        for layer, counts in found.layers.items():
            totals[sample.modality or _UNKNOWN][layer].update(dict(enumerate(counts)))
            experts = max(experts, len(counts))
    tokens = {
        modality: {layer: tuple(sums[expert] for expert in range(experts)) for layer, sums in sorted(layers.items())}
        for modality, layers in sorted(totals.items())
    }
    return RoutingTable(expert_domains=domains, tokens=tokens)
