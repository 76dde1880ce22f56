"""Whether the tensors of a checkpoint are those that its config.json and adapter_config.json promise. Torch-free.

Loading compares every tensor (medmoe.model.checkpoint.io), which needs torch to build the model. This asks less, of the
header alone: the experts, the layers and the parts that must be there, and everything about an adapter.
"""

import re
from collections.abc import Mapping

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.model.files.terminal_safe import listed
from medmoe.model.lora.adapter_config import AdapterConfig, architecture_sha256
from medmoe.model.lora.layout import backbone_blocks, tensor_shapes

Shapes = Mapping[str, tuple[int, ...]]
_LAYER = re.compile(r"language_model\.model\.layers\.(0|[1-9][0-9]{0,5})\.(.+)")
_MOE = re.compile(r"mlp\.(gate|experts|shared_expert|coefficient)\.")
_INPUT_NORM = "projector.input_norm."
_KNOWN = re.compile(
    r"vision_tower\.backbone\.(embeddings|encoder|layernorm|layer|pre_layrnorm)\..+"
    r"|projector\.(input_norm|linear_[12])\.(weight|bias)"
    r"|language_model\.(model\.(embed_tokens|norm|final_layernorm)|lm_head)\.(weight|bias)"
)


def problems_of_weights(config: MedMoEConfig, shapes: Shapes) -> list[str]:
    """What of the model's tensors is missing or in the wrong place, one sentence each; empty when nothing is."""
    layers: dict[int, set[str]] = {index: set() for index in range(config.text_config.num_hidden_layers)}
    outside, unknown = _outside_the_layers(config), []
    for name in shapes:
        if match := _LAYER.fullmatch(name):
            index = int(match[1])
            if index in layers:
                layers[index].add(match[2])
                continue
        if match or not _KNOWN.fullmatch(name) or (name.startswith(_INPUT_NORM) and name not in outside):
            unknown.append(name)
    missing = [name for name in outside if name not in shapes]
    for index, found in layers.items():
        wanted = _names(config, index)
        missing += [f"language_model.model.layers.{index}.{name}" for name in sorted(wanted - found)]
        unexpected = {name for name in found if _MOE.match(name)} - wanted
        unknown += [f"language_model.model.layers.{index}.{name}" for name in sorted(unexpected)]
    return [*_sentence("missing", missing), *_sentence("not in config.json", unknown)]


def problems_of_adapter(
    adapter: AdapterConfig, config: MedMoEConfig, shapes: Shapes, *, weights_sha256: str | None
) -> list[str]:
    """The same for an adapter; without the digest of the weights, its base is compared by architecture only."""
    found = []
    if adapter.base.config_sha256 != architecture_sha256(config):
        found.append("the adapter was trained on another architecture than config.json's")
    if weights_sha256 is not None and adapter.base.weights_sha256 != weights_sha256:
        found.append("the adapter was trained on other weights than these")
    try:
        wanted = tensor_shapes(adapter, config)
    except ConfigError as error:
        return [*found, str(error)]
    misshapen = sorted(name for name in wanted.keys() & shapes.keys() if wanted[name] != shapes[name])
    found += _sentence("missing from the adapter", sorted(wanted.keys() - shapes.keys()))
    found += _sentence("not of the adapter's", sorted(shapes.keys() - wanted.keys()))
    return [*found, *_sentence("of another shape than the adapter's", misshapen)]


def _outside_the_layers(config: MedMoEConfig) -> list[str]:
    text = config.text_config
    names = ["projector.linear_1.weight", "projector.linear_2.weight", "language_model.model.embed_tokens.weight"]
    if config.projector_config.input_norm == "layer_norm":
        names += [f"{_INPUT_NORM}weight", f"{_INPUT_NORM}bias"]
    names.append(f"language_model.model.{'final_layernorm' if text.model_type == 'phi' else 'norm'}.weight")
    return names if text.tie_word_embeddings else [*names, "language_model.lm_head.weight"]


def _names(config: MedMoEConfig, layer: int) -> set[str]:
    """The weight matrices of a decoder layer, and the biases that only MoE layers have a choice about."""
    text = config.text_config
    attention, ffn = backbone_blocks(text)
    suffixes = ("weight", "bias") if text.model_type == "phi" else ("weight",)
    names = {f"self_attn.{linear.name}.weight" for linear in attention.linears}
    parts = ["mlp"]
    if layer in text.moe_layers:
        parts = [f"mlp.experts.{expert}" for expert in range(text.num_experts)]
        parts += ["mlp.shared_expert"] if text.shared_expert else []
        names |= {"mlp.gate.weight", *(["mlp.gate.bias"] if text.gate_bias else [])}
        names |= {"mlp.coefficient.weight", "mlp.coefficient.bias"} if text.residual else set()
    return names | {f"{part}.{linear.name}.{suffix}" for part in parts for linear in ffn.linears for suffix in suffixes}


def _sentence(what: str, names: list[str]) -> list[str]:
    return [f"{what}: {listed(names)}"] if names else []
