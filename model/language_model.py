"""The text model: a backbone is somebody else's; we replace its FFNs."""

from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    StableLmConfig,
    StableLmForCausalLM,
)

from medmoe.model.config import TextConfig
from medmoe.model.moe import MoE


def hf_text_config(config: TextConfig) -> PreTrainedConfig:
    """transformers' own configuration of the backbone, for the reference model and for vLLM's decoder alike."""
    fields: dict[str, object] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    rope: dict[str, object] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.model_type == "llama":
        return LlamaConfig(
            **fields, head_dim=config.head_dim, rms_norm_eps=config.norm_eps, hidden_act="silu", rope_parameters=rope
        )
    # Here and in the rotary parameters: transformers and vLLM read it in different places.
    fields["partial_rotary_factor"] = rope["partial_rotary_factor"] = config.partial_rotary_factor
    if config.model_type == "phi":
        return PhiConfig(
            **fields,
            layer_norm_eps=config.norm_eps,
            hidden_act="gelu_new",
            rope_parameters=rope,
            # vLLM's name for the FFN's width, which it otherwise takes to be four times the hidden size.
            n_inner=config.intermediate_size,
        )
    return StableLmConfig(
        **fields,
        layer_norm_eps=config.norm_eps,
        hidden_act="silu",
        rope_parameters=rope,
        use_qkv_bias=config.qkv_bias,
    )


def build_language_model(config: TextConfig) -> PreTrainedModel:
    """transformers' decoder with the FFN of each layer in `moe_layers` replaced by an MoE (random weights)."""
    hf_config = hf_text_config(config)
    if config.model_type == "llama":
        model: PreTrainedModel = LlamaForCausalLM(hf_config)
    elif config.model_type == "phi":
        model = PhiForCausalLM(hf_config)
        # LLaVA's Phi has no bias at the output head, though Phi-2 itself does: upstream discards it (`llava_phi.py`).
        model.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    else:
        model = StableLmForCausalLM(hf_config)
    upcycle(model, config)
    return model


def upcycle(model: PreTrainedModel, config: TextConfig) -> None:
    """Replace the dense FFNs of `moe_layers` in place: every expert and the shared expert start as the FFN itself.

    Faithful to the paper, this is not function-preserving: the layer's output grows by 1 + p (or by 2 for top-2).
    """
    for index in config.moe_layers:
        layer = model.model.layers[index]
        layer.mlp = MoE(layer.mlp, config=config)
