"""List the adapted linears of each backbone and the tensors of adapter_model.safetensors. Torch-free.

A block is a decoder layer's FFN or attention. Its entry linears read the block's input and share one shrink product;
its exit linear reads what the block computed between. Training, serving and the file format all follow this one table.
"""

from dataclasses import dataclass
from typing import Literal

from medmoe.model.config import MedMoEConfig, TextConfig
from medmoe.model.errors import ConfigError
from medmoe.model.lora.adapter_config import AdapterConfig

BlockName = Literal["attn", "mlp"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearShape:
    """Describe one linear of the backbone, by the name that transformers gives it."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockShape:
    """The linears of one block; `entry` in the order in which vLLM packs them."""

    name: BlockName
    entry: tuple[LinearShape, ...]
    exit: LinearShape

    @property
    def linears(self) -> tuple[LinearShape, ...]:
        return (*self.entry, self.exit)

    @property
    def place(self) -> str:
        """Return the block's attribute of a decoder layer."""
        return "self_attn" if self.name == "attn" else "mlp"

    @property
    def width(self) -> int:
        """Return the width of the block's input."""
        return self.entry[0].in_features


def backbone_blocks(text: TextConfig) -> tuple[BlockShape, BlockShape]:
    """Return attention and FFN of a layer of this backbone."""
    phi = text.model_type == "phi"
    width, inner = text.hidden_size, text.intermediate_size
    heads, kv = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    return (
        BlockShape(
            name="attn",
            entry=(_linear("q_proj", width, heads), _linear("k_proj", width, kv), _linear("v_proj", width, kv)),
            exit=_linear("dense" if phi else "o_proj", heads, width),
        ),
        BlockShape(
            name="mlp",
            entry=tuple(_linear(name, width, inner) for name in (("fc1",) if phi else ("gate_proj", "up_proj"))),
            exit=_linear("fc2" if phi else "down_proj", inner, width),
        ),
    )


def adapted_blocks(config: AdapterConfig, base: MedMoEConfig) -> tuple[BlockShape, ...]:
    """Return the blocks whose linears `target_modules` names, the same in every layer.

    Raises ConfigError when the adapter does not fit `base`: another depth, linears it has not, a block named in part,
    or a base that already has MoE layers.
    """
    text = base.text_config
    if text.moe_layers:
        raise ConfigError("adapters sit on a dense base; this config.json has moe_layers")
    if len(config.layers) != text.num_hidden_layers:
        raise ConfigError(f"the adapter has {len(config.layers)} layers, the base model {text.num_hidden_layers}")
    wanted = set(config.target_modules)
    blocks = backbone_blocks(text)
    if unknown := wanted - {linear.name for block in blocks for linear in block.linears}:
        raise ConfigError(f"a {text.model_type} layer has no linear {', '.join(sorted(unknown))}")
    chosen = []
    for block in blocks:
        names = {linear.name for linear in block.linears}
        if names <= wanted:
            chosen.append(block)
        elif names & wanted:
            raise ConfigError(f"target_modules names {', '.join(sorted(names & wanted))} but not the whole block")
    return tuple(chosen)


def target_modules(text: TextConfig, *, attention: bool = False) -> tuple[str, ...]:
    """Return the linears to adapt: the FFN's, and with `attention` those of attention too."""
    attn, mlp = backbone_blocks(text)
    return tuple(linear.name for block in ((attn, mlp) if attention else (mlp,)) for linear in block.linears)


def router_names(config: AdapterConfig, block: BlockShape, *, layer: int) -> dict[str, int]:
    """Return the prefix on disk and the input width of each router of the block; empty for a single expert."""
    if config.layers[layer].n_experts == 1:
        return {}
    if config.router_scope == "block":
        return {f"layers.{layer}.{block.name}.router": block.width}
    return {f"layers.{layer}.{linear.name}.router": linear.in_features for linear in block.linears}


def tensor_shapes(config: AdapterConfig, base: MedMoEConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor of adapter_model.safetensors by name. Raises ConfigError as `adapted_blocks` does."""
    shapes: dict[str, tuple[int, ...]] = {}
    for block in adapted_blocks(config, base):
        for index, layer in enumerate(config.layers):
            for name, width in router_names(config, block, layer=index).items():
                shapes[f"{name}.weight"] = (layer.n_experts, width)
                shapes[f"{name}.log_tau"] = (1,)
            for linear in block.linears:
                shapes[f"layers.{index}.{linear.name}.lora_A"] = (layer.total_rank, linear.in_features)
                shapes[f"layers.{index}.{linear.name}.lora_B"] = (linear.out_features, layer.total_rank)
    return shapes


def tensor_dtype(name: str, config: AdapterConfig) -> str:
    """Return the dtype of a tensor of adapter_model.safetensors, by torch's name: routers stay float32."""
    return "float32" if ".router." in name else config.dtype


def _linear(name: str, in_features: int, out_features: int) -> LinearShape:
    return LinearShape(name=name, in_features=in_features, out_features=out_features)
