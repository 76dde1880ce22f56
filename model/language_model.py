"""The text model: a backbone is somebody else's; we replace its FFNs."""

from transformers import LlamaConfig, LlamaForCausalLM

from medmoe.model.config import TextConfig
from medmoe.model.moe import MoE


def hf_text_config(config: TextConfig) -> LlamaConfig:
    """transformers' own configuration of the backbone, for the reference model and for vLLM's decoder alike."""
    return LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tie_word_embeddings,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )


def build_language_model(config: TextConfig) -> LlamaForCausalLM:
    """transformers' decoder with the FFN of each layer in `moe_layers` replaced by an MoE (random weights)."""
    model = LlamaForCausalLM(hf_text_config(config))
    upcycle(model, config)
    return model


def upcycle(model: LlamaForCausalLM, config: TextConfig) -> None:
    """Replace the dense FFNs of `moe_layers` in place: every expert and the shared expert start as the FFN itself.

    Faithful to the paper, this is not function-preserving: the layer's output grows by 1 + p (or by 2 for top-2).
    """
    for index in config.moe_layers:
        layer = model.model.layers[index]
        layer.mlp = MoE(layer.mlp, config=config)
