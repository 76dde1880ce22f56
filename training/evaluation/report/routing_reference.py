"""From an evaluation's routing table to routing_reference.json, which a service compares its traffic with."""

from collections.abc import Sequence

from medmoe.model.files.routing_reference import CountedOn, LayerReference, RoutingReference
from medmoe.training.config import Split
from medmoe.training.data.errors import DataError
from medmoe.training.evaluation.report.routing_table import UNKNOWN, RoutingTable


def routing_reference(
    table: RoutingTable, *, datasets: Sequence[str], split: Split, weights_sha256: str, adapter_sha256: str | None
) -> RoutingReference:
    """What a service may expect of the same weights. Raises DataError where nothing was routed: a dense model."""
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
