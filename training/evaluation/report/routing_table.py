"""Sum the experts of prompts by modality and by kind of token over an evaluation."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medmoe.model.files.routing_reference import CountedOn, LayerReference, RoutingReference
from medmoe.training.config import Split
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.prediction import Prediction

UNKNOWN = "unknown"
_Totals = defaultdict[str, defaultdict[int, Counter[int]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutingTable:
    """Prompt tokens, image and words alike; empty for a dense model."""

    expert_domains: tuple[str, ...]
    """Name of each expert; empty where the checkpoint knows none."""
    tokens: dict[str, dict[int, tuple[int, ...]]]
    """By modality: for each MoE layer the tokens by expert."""
    by_kind: dict[str, dict[int, tuple[int, ...]]] = field(default_factory=dict)
    """By kind of token, image or question (every other prompt token): for each MoE layer the tokens by expert."""
    samples: int = 0
    """Number of samples whose routing is known."""

    @property
    def num_experts(self) -> int:
        return max((len(counts) for layers in self.tokens.values() for counts in layers.values()), default=0)


def routing_table(samples: Sequence[Sample], *, predictions: Mapping[str, Prediction]) -> RoutingTable:
    """Sum the predictions' routing by their samples' modality and by kind of token."""
    modalities: _Totals = defaultdict(lambda: defaultdict(Counter))
    kinds: _Totals = defaultdict(lambda: defaultdict(Counter))
    domains: tuple[str, ...] = ()
    experts = counted = 0
    for sample in samples:
        found = predictions[sample.id].routing
        if found is None:
            continue
        counted += 1
        domains = found.expert_domains
        for layer, counts in found.layers.items():
            modalities[sample.modality or UNKNOWN][layer].update(dict(enumerate(counts)))
            experts = max(experts, len(counts))
        for layer, image in found.image.items():
            rest = [all_ - of_image for all_, of_image in zip(found.layers[layer], image, strict=True)]
            kinds["image"][layer].update(dict(enumerate(image)))
            kinds["question"][layer].update(dict(enumerate(rest)))
    return RoutingTable(
        expert_domains=domains,
        tokens=_counts(modalities, experts=experts),
        by_kind=_counts(kinds, experts=experts),
        samples=counted,
    )


def _counts(totals: _Totals, *, experts: int) -> dict[str, dict[int, tuple[int, ...]]]:
    return {
        name: {layer: tuple(sums[expert] for expert in range(experts)) for layer, sums in sorted(layers.items())}
        for name, layers in sorted(totals.items())
    }


def routing_reference(
    table: RoutingTable, *, datasets: Sequence[str], split: Split, weights_sha256: str, adapter_sha256: str | None
) -> RoutingReference:
    """Return the routing that a service may expect of the same weights. Raises DataError where nothing was routed: a
    dense model.
    """
    if not table.by_kind:
        raise DataError("this checkpoint has no MoE layers: there is no routing to refer to")
    known = {modality: layers for modality, layers in table.tokens.items() if modality != UNKNOWN}
    return RoutingReference(
        weights_sha256=weights_sha256,
        adapter_sha256=adapter_sha256,
        counted_on=CountedOn(datasets=tuple(datasets), split=split, samples=table.samples),
        layers=tuple(
            LayerReference(
                layer=layer,
                by_kind={"image": image, "question": table.by_kind["question"][layer]},
                by_modality={modality: layers[layer] for modality, layers in known.items()},
            )
            for layer, image in table.by_kind["image"].items()
        ),
    )
