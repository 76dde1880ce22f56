"""Build the decoder: a backbone of transformers' whose FFNs are partly replaced by MoE layers."""

import torch
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
from medmoe.model.errors import ConfigError
from medmoe.model.moe import MoE


def hf_text_config(config: TextConfig) -> PreTrainedConfig:
    """Return transformers' configuration of the backbone, for the reference model and for vLLM's decoder."""
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
        )
    return StableLmConfig(
        **fields,
        layer_norm_eps=config.norm_eps,
        hidden_act="silu",
        rope_parameters=rope,
        use_qkv_bias=config.qkv_bias,
    )


def build_language_model(config: TextConfig) -> PreTrainedModel:
    """Build transformers' decoder with an MoE in each layer of `moe_layers`, with random weights."""
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


def upcycle(model: PreTrainedModel, config: TextConfig, *, function_preserving: bool = False) -> None:
    """Replace the dense FFNs of `moe_layers` in place: every expert and the shared expert start as the FFN itself.

    As in the paper, this changes the model's function by default: a layer's output is scaled by 1 + p (by 2 for top-2),
    and training first has to undo that.

    With `function_preserving` the answers stay the same. Where there is a meta expert, which is the FFN, the output
    matrices and biases of the other experts start at zero; their inner matrices and a trained gate get gradients from
    the second step on. Without a meta expert the experts are copies whose renormalised weights sum to one. Raises
    ConfigError where neither is possible: unnormalised copies are scaled by p, and the residual form counts the meta
    expert 1 + c times.
    """
    if function_preserving and config.residual:
        raise ConfigError(
            "residual true has no function-preserving start: the meta expert is counted 1 + c times; set residual "
            "false or leave function_preserving off"
        )
    if function_preserving and not (config.shared_expert or config.renormalize):
        raise ConfigError(
            "without a shared expert, only weights that sum to one start function-preserving: set shared_expert or "
            "renormalize true, or leave function_preserving off"
        )
    for index in config.moe_layers:
        layer = model.model.layers[index]
        moe = MoE(layer.mlp, config=config)
        if function_preserving and config.shared_expert:
            for expert in moe.experts:
                _silence(expert)
        # A new module would be in training mode.
        layer.mlp = moe.train(layer.training)


@torch.no_grad()
def _silence(expert: nn.Module) -> None:
    """Make an FFN's output zero by its last matrix (`down_proj`, or Phi's `fc2`)."""
    output = expert.down_proj if hasattr(expert, "down_proj") else expert.fc2
    assert isinstance(output, nn.Linear)
    output.weight.zero_()
    if output.bias is not None:
        output.bias.zero_()
