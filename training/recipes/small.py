"""Define Med-MoE on SmolLM2-135M with the tiny model's tower, for one GPU; on a CPU it is slow."""

from medmoe.model.config import MedMoEConfig, ProjectorConfig, TextConfig
from medmoe.training.config import RunConfig
from medmoe.training.recipes.open_data import DOMAINS, TESTED, captions, questions, router_held_out, router_images
from medmoe.training.recipes.stages import alignment, instruction_tuning, moe_tuning, packed, router
from medmoe.training.recipes.tiny import image_processor, vision_tower


def small() -> RunConfig:
    """Return fifteen MoE layers of four experts and the meta expert, on the open datasets.

    The published learning rates belong to models ten times as large; nothing here has been tuned.
    """
    return RunConfig(
        name="medmoe-small",
        seed=20240417,
        architecture=MedMoEConfig(
            name="medmoe-small",
            vision_config=vision_tower(),
            projector_config=ProjectorConfig(downsample_factor=2),
            text_config=smollm2(),
            image_processor=image_processor(),
            # <empty_output>, of which neither the model nor anybody's question has made use.
            image_token_id=16,
            expert_domains=DOMAINS,
        ),
        tokenizer_size=None,
        alignment=alignment(captions(), epochs=4),
        instruction_tuning=packed(instruction_tuning(questions(), epochs=3, learning_rate=2e-4, batch_size=8)),
        router=router(router_images(), held_out=router_held_out(), domains=DOMAINS, per_domain=500),
        moe_tuning=packed(moe_tuning(questions(), epochs=3, learning_rate=1e-4, batch_size=8)),
        evaluation=TESTED,
    )


def smollm2() -> TextConfig:
    """Return SmolLM2-135M-Instruct with every second FFN an MoE.

    Its own padding is the end of a turn, which must stay an answer's last token: here it is <|endoftext|>. Of its
    context of 8,192 tokens a question and its image need a few hundred.
    """
    return TextConfig(
        model_type="llama",
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        rope_theta=100000.0,
        tie_word_embeddings=True,
        eos_token_id=2,
        pad_token_id=0,
        moe_layers=tuple(range(0, 30, 2)),
    )
