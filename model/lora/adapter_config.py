"""Parse adapter_config.json: the adapted linears and the experts of every layer.

Torch-free, like medmoe.model.config, and as strict: an unknown or missing key is a ConfigError that names it. Schedules
and rank ladders are expanded before they are written (medmoe.model.lora.schedule): a file is read without them.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from medmoe.model.config import ADAPTER_CONFIG_FILE, MedMoEConfig
from medmoe.model.files.strict_json import StrictFile, StrictSection
from medmoe.model.files.weights_bound_file import Sha256

Rank = Annotated[int, Field(ge=0, le=1024)]
Scale = Annotated[float, Field(ge=0, le=2**16)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
RouterScope = Literal["block", "module"]
AnchorMode = Literal["null", "replay", "frozen"]
Isolation = Literal["anchors", "both", "none"]
"""Which experts learn from their own kind of sample only (general: anchors, medical: specialists); a training setting,
not stored."""


class LayerExperts(StrictSection):
    """Describe the experts of one decoder layer, anchors first. One expert alone needs no router: its gate is 1."""

    n_anchor: int = Field(ge=0, le=64)
    ranks: tuple[Rank, ...] = Field(min_length=1, max_length=64)
    """Rank of each expert; 0 only for an anchor, which is then nothing but a gate that attenuates the others."""
    alphas: tuple[Scale, ...] = Field(min_length=1, max_length=64)
    """An expert's product is scaled by alpha / rank; the paper takes alpha = 2 rank."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.alphas) != len(self.ranks):
            raise ValueError(f"{len(self.alphas)} alphas for {len(self.ranks)} ranks")
        if self.n_anchor >= len(self.ranks):
            raise ValueError("at least one expert must be a specialist, not an anchor")
        if not all(self.ranks[self.n_anchor :]):
            raise ValueError("a specialist has rank 0")
        return self

    @property
    def n_experts(self) -> int:
        return len(self.ranks)

    @property
    def total_rank(self) -> int:
        """Return rows of the concatenated A: the sum over experts."""
        return sum(self.ranks)

    @property
    def scales(self) -> tuple[float, ...]:
        """Return alpha / rank of each expert; 0 for a rank-0 anchor."""
        return tuple(alpha / rank if rank else 0.0 for alpha, rank in zip(self.alphas, self.ranks, strict=True))

    @property
    def segment(self) -> tuple[int, ...]:
        """Return the expert to which each of the `total_rank` rows belongs, ascending."""
        return tuple(expert for expert, rank in enumerate(self.ranks) for _ in range(rank))


class BaseModelIdentity(StrictSection):
    """The dense checkpoint an adapter was trained on; it fits no other."""

    name: str = Field(min_length=1, max_length=256)
    revision: str | None = Field(default=None, max_length=256)
    config_sha256: Sha256
    """`architecture_sha256` of its config.json."""
    weights_sha256: Sha256
    """Digest of its weights, every byte: two fine-tunings of one model share names, shapes and header."""


class AdapterConfig(StrictFile):
    """Hold everything that builds the adapters of one checkpoint and reads their tensors."""

    FILE = ADAPTER_CONFIG_FILE
    KIND = "a Med-MoE-LoRA configuration"

    peft_type: Literal["MED_MOE_LORA"] = "MED_MOE_LORA"
    format_version: Literal[1] = 1
    base: BaseModelIdentity
    adapter_sha256: Sha256 | None = None
    """SHA-256 of the adapter_model.safetensors it describes, filled in when that is written: the file of another
    adapter on the same base has the same names and shapes."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Dtype of lora_A and lora_B on disk; routers are always stored in float32."""
    target_modules: tuple[str, ...] = Field(min_length=1, max_length=16)
    """The adapted linears by their own names: all of a block (FFN, attention) or none of it."""
    router_scope: RouterScope = "block"
    """block: one router per FFN or attention block, on the block's input. module: one per linear, on its own input."""
    anchor_mode: AnchorMode = "null"
    """null: anchors have rank 0. replay: trained on general samples. frozen: from a general LoRA, never trained."""
    layers: tuple[LayerExperts, ...] = Field(min_length=1, max_length=1024)
    """One entry for every decoder layer, first layer first."""
    tau_clamp: tuple[Temperature, Temperature] = (0.25, 4.0)
    top_k: None = None
    """Reserved: gates are dense, as the paper's equation 3 has them."""
    training: dict[str, JsonValue] = Field(default_factory=dict)
    """The training manifest: recipe, data, losses; read by people."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.target_modules)) != len(self.target_modules):
            raise ValueError("target_modules repeats a name")
        if not self.tau_clamp[0] <= 1.0 <= self.tau_clamp[1]:
            raise ValueError("tau_clamp must hold 1, where the temperature starts")
        for index, layer in enumerate(self.layers):
            anchors = layer.ranks[: layer.n_anchor]
            if self.anchor_mode == "null" and any(anchors):
                raise ValueError(f"layer {index} has anchors with a rank, but anchor_mode is null")
            if self.anchor_mode != "null" and not all(anchors):
                raise ValueError(f"layer {index} has an anchor of rank 0, but anchor_mode is {self.anchor_mode}")
        return self

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """Read `directory/adapter_config.json`. Raises ConfigError when it is missing or malformed."""
        return cls.read(directory)


def architecture_sha256(config: MedMoEConfig) -> str:
    """Return the digest of what decides a base model's hidden states: sizes, preprocessing and prompt.

    Name, storage dtype and expert labels do not count. Fields at their default are left out, so that a later version
    with new optional fields computes the same digest for an old file.
    """
    fields = config.model_dump(
        mode="json", exclude_defaults=True, exclude={"name", "dtype", "architectures", "expert_domains"}
    )
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
