"""The published sizes of Med-MoE: CLIP-L/336 with Phi-2 or StableLM-2, four experts in every second layer."""

from medmoe.model.config import ImageProcessorConfig, MedMoEConfig, TextConfig, VisionConfig

CLIP_L = VisionConfig(
    model_type="clip",
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=336,
    patch_size=14,
    layer_norm_eps=1e-5,
    hidden_act="quick_gelu",
)
PHI_2 = TextConfig(
    model_type="phi",
    vocab_size=51200,
    hidden_size=2560,
    intermediate_size=10240,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=2048,
    partial_rotary_factor=0.4,
    eos_token_id=50256,
    pad_token_id=50295,
    moe_layers=tuple(range(0, 32, 2)),
)
STABLELM_2 = TextConfig(
    model_type="stablelm",
    vocab_size=100352,
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=24,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=4096,
    partial_rotary_factor=0.25,
    qkv_bias=True,
    eos_token_id=100257,
    pad_token_id=100280,
    moe_layers=tuple(range(0, 24, 2)),
)


def published(text: TextConfig) -> MedMoEConfig:
    return MedMoEConfig(
        vision_config=CLIP_L,
        text_config=text,
        image_processor=ImageProcessorConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), background=(0, 0, 0)),
        image_token_id=text.vocab_size,
    )
