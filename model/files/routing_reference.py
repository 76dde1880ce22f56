"""Read routing_reference.json: a checkpoint's routing on its evaluation data. Torch-free.

A service compares its own traffic with it; medmoe.training.evaluation counts it. A file belongs to exactly one set of
weights: other routers send the same tokens elsewhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from medmoe.model.errors import CheckpointError
from medmoe.model.files.strict_json import StrictSection
from medmoe.model.files.weights_bound_file import WeightsBoundFile

ROUTING_REFERENCE_FILE = "routing_reference.json"

Kind = Literal["image", "question"]
"""The kinds of token that are compared. Answers are left out: they follow from where the prompt went."""
Tokens = Annotated[int, Field(ge=0, le=2**53)]
ExpertTokens = Annotated[tuple[Tokens, ...], Field(min_length=1, max_length=4096)]
"""By expert index. Over their sum, the shares that are expected of a service."""


class CountedOn(StrictSection):
    """The samples whose prompts were counted."""

    datasets: tuple[str, ...] = Field(min_length=1)
    split: Literal["train", "val", "test"]
    samples: int = Field(gt=0)


class LayerReference(StrictSection):
    """One MoE layer."""

    layer: int = Field(ge=0)
    by_kind: dict[Kind, ExpertTokens] = Field(min_length=1)
    by_modality: dict[str, ExpertTokens] = Field(max_length=256)
    """Tokens of samples whose imaging modality is known: image and question tokens together."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Return the number of tokens by expert, all kinds together."""
        return tuple(sum(counts) for counts in zip(*self.by_kind.values(), strict=True))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({len(counts) for counts in (*self.by_kind.values(), *self.by_modality.values())}) > 1:
            raise ValueError("all counts must be of the same number of experts")
        if sum(self.tokens) == 0:
            raise ValueError("no token was counted")
        if any(sum(counts) == 0 for counts in self.by_modality.values()):
            raise ValueError("a modality without tokens expects nothing")
        return self


class RoutingReference(WeightsBoundFile):
    """The content of routing_reference.json."""

    FILE = ROUTING_REFERENCE_FILE
    KIND = "a routing reference that this version reads"
    MADE = "counted with"
    REMEDY = "evaluate this checkpoint with --routing-reference"

    counted_on: CountedOn
    layers: tuple[LayerReference, ...] = Field(min_length=1)
    """Every MoE layer, in order."""

    @classmethod
    def from_directory(
        cls,
        directory: Path,
        *,
        weights_sha256: str,
        adapter_sha256: str | None = None,
        moe_layers: Sequence[int],
        num_experts: int,
    ) -> "RoutingReference | None":
        """Return the checkpoint's reference; None where it has none.

        Raises ConfigError when the file is malformed, CheckpointError when it was counted with other weights or is of
        other layers or experts than `config.json` has.
        """
        found = cls.of_weights(directory, weights_sha256=weights_sha256, adapter_sha256=adapter_sha256)
        if found is None:
            return None
        path = directory / ROUTING_REFERENCE_FILE
        if tuple(layer.layer for layer in found.layers) != tuple(moe_layers):
            raise CheckpointError(f"{path} is not of this checkpoint's MoE layers, {', '.join(map(str, moe_layers))}")
        if any(len(layer.tokens) != num_experts for layer in found.layers):
            raise CheckpointError(f"{path} does not count {num_experts} experts in every layer")
        return found
