"""Read an upstream decoder as TextConfig fields; refuse by name what this model computes differently."""

from typing import Literal

from medmoe.model.conversion.report import Report
from medmoe.model.conversion.upstream.config import MAX_LAYERS, UpstreamConfig
from medmoe.model.conversion.upstream.names import NUMBER, indices
from medmoe.model.errors import CheckpointError, ConfigError

Backbone = Literal["phi", "stablelm", "llama"]
_BACKBONES: dict[str, Backbone] = {"phi": "phi", "stablelm": "stablelm", "llama": "llama", "mistral": "llama"}
_SUPPORTED = "moe_llava_ or llava_ with phi, stablelm, llama or mistral"
_ACTIVATIONS = {"phi": "gelu_new", "stablelm": "silu", "llama": "silu"}
_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"


def find_backbone(shapes: dict[str, tuple[int, ...]], config: UpstreamConfig) -> Backbone:
    """Return the backbone by the keys, checked against model_type. Raises ConfigError for a backbone that is not
    supported.
    """
    model_type = config.text("model_type")
    if any(name.startswith("transformer.") for name in shapes) or (model_type and "qwen" in model_type):
        raise ConfigError(f"Qwen checkpoints are not supported (model_type {model_type!r}); supported: {_SUPPORTED}")
    if "model.final_layernorm.weight" in shapes:
        found: Backbone = "phi"
    elif "model.norm.weight" in shapes:
        # LayerNorm has a bias, RMSNorm has none.
        found = "stablelm" if "model.norm.bias" in shapes else "llama"
    else:
        raise CheckpointError(
            f"no known decoder: neither model.norm nor model.final_layernorm; supported: {_SUPPORTED}"
        )
    if model_type is not None:
        said = _BACKBONES.get(model_type.removeprefix("moe_").removeprefix("llava_"))
        if said is None or "llava_" not in model_type:
            raise ConfigError(f"config.json: model_type {model_type!r} is not supported; supported: {_SUPPORTED}")
        if said != found:
            raise ConfigError(f"config.json says model_type {model_type!r}, but the tensors are those of {found}")
    return found


def text_fields(
    backbone: Backbone, shapes: dict[str, tuple[int, ...]], config: UpstreamConfig, report: Report
) -> dict[str, object]:
    """Return the fields of TextConfig but for the vocabulary, the special tokens and the MoE. Raises ConfigError,
    CheckpointError.

    Sizes are only read here: every tensor's shape is compared with them afterwards.
    """
    activation = config.text("hidden_act")
    if activation != _ACTIVATIONS[backbone]:
        raise ConfigError(
            f"config.json: hidden_act is {activation!r}; {backbone} is built with {_ACTIVATIONS[backbone]}"
        )
    config.refuse("rope_scaling", "rope_parameters", why="scaled rotary positions are not supported")
    config.refuse("quantization_config", why="quantised weights are not supported")
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if "head_dim" in config and config.size("head_dim") * heads != hidden:
        raise ConfigError(f"config.json: head_dim {config.size('head_dim')} x {heads} heads is not {hidden}")
    layers = config.size("num_hidden_layers", most=MAX_LAYERS)
    if (found := indices(shapes, rf"model\.layers\.{NUMBER}\.")) != list(range(layers)):
        raise ConfigError(f"config.json says {layers} layers, the tensors hold {len(found)}")
    return {
        "model_type": backbone,
        "hidden_size": hidden,
        "intermediate_size": config.size("intermediate_size"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": config.size("num_key_value_heads") if "num_key_value_heads" in config else heads,
        "max_position_embeddings": config.size("max_position_embeddings"),
        "rope_theta": config.number("rope_theta"),
        "tie_word_embeddings": _tied(shapes, config),
        **_own_fields(backbone, config, report),
    }


def _own_fields(backbone: Backbone, config: UpstreamConfig, report: Report) -> dict[str, object]:
    if backbone == "llama":
        config.refuse("attention_bias", "mlp_bias", why="Llama is built without biases here")
        own: dict[str, object] = {"norm_eps": config.number("rms_norm_eps", below=1)}
        window, context = config.integer("sliding_window"), config.size("max_position_embeddings")
        if window is not None and window < context:
            own["max_position_embeddings"] = window
            report.notes.append(
                f"context cut from {context} to {window} tokens: beyond it upstream attends to a sliding window only"
            )
        return own
    config.refuse("qk_layernorm", why="norms inside the attention are not supported")
    if backbone == "phi":
        return {
            "norm_eps": config.number("layer_norm_eps", below=1),
            "partial_rotary_factor": config.number("partial_rotary_factor"),
        }
    config.refuse("use_parallel_residual", why="the parallel form of StableLM is not supported")
    # Two generations of StableLM's configuration: Stability's own (epoch) and transformers'.
    return {
        "norm_eps": config.number("layer_norm_eps", "norm_eps", below=1),
        "partial_rotary_factor": config.number("partial_rotary_factor", "rope_pct"),
        "qkv_bias": config.flag("use_qkv_bias"),
    }


def _tied(shapes: dict[str, tuple[int, ...]], config: UpstreamConfig) -> bool:
    """Return whether the output head is tied to the embedding; where config.json does not say, the tensors do."""
    for name, shape in ((_EMBEDDING, shapes.get(_EMBEDDING)), (_HEAD, shapes.get(_HEAD, (0, 0)))):
        if shape is None or len(shape) != 2:
            raise CheckpointError(f"{name} is {'missing' if shape is None else f'of shape {shape}, not a matrix'}")
    if "tie_word_embeddings" not in config:
        return _HEAD not in shapes
    tied = config.flag("tie_word_embeddings")
    if not tied and _HEAD not in shapes:
        raise CheckpointError(f"{_HEAD} is missing, and config.json does not tie it to the embedding")
    return tied
