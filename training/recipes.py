"""Named runs. Each function returns a full, frozen configuration; to change a run, write a function."""

from medmoe.model.config import (
    ImageProcessorConfig,
    MedMoEConfig,
    ProjectorConfig,
    TextConfig,
    VisionConfig,
)
from medmoe.model.lora.adapter_config import LayerExperts
from medmoe.model.lora.schedule import expand, explicit
from medmoe.training.config import DataConfig, RouterConfig, RunConfig, Split, StageConfig
from medmoe.training.lora_config import LoRARunConfig

PROJECTOR = r"projector\."
LANGUAGE_MODEL = r"language_model\."
EXPERTS = r"language_model\.model\.layers\.\d+\.mlp\.(experts|shared_expert)\."
ADAPTERS = r"language_model\.model\.layers\.\d+\.(self_attn|mlp)\.adapter\."
DOMAINS = ("CT", "MRI", "X-ray", "pathology")
RADIOLOGY = ("slake", "vqa_rad", "vqa_med_2019")


def _captions() -> tuple[DataConfig, ...]:
    return (
        DataConfig(dataset="slake", source="captions"),
        DataConfig(dataset="vqa_med_2019", source="captions"),
    )


def _questions() -> tuple[DataConfig, ...]:
    """Everything that is asked of the tiny model, in one mixture."""
    return (
        DataConfig(dataset="slake", source="vqa"),
        DataConfig(dataset="vqa_rad", source="vqa"),
        DataConfig(dataset="vqa_med_2019", source="vqa"),
        DataConfig(dataset="path_vqa", source="vqa"),
        DataConfig(dataset="slake", source="modality"),
        DataConfig(dataset="vqa_rad", source="modality"),
        DataConfig(dataset="vqa_med_2019", source="modality"),
        DataConfig(dataset="path_vqa", source="modality", limit=600),
        DataConfig(dataset="mednist", source="classification", limit=600),
        DataConfig(dataset="pneumonia_mnist", source="classification", limit=1500),
    )


def _modalities(*names: str, split: Split = "train") -> tuple[DataConfig, ...]:
    return tuple(DataConfig(dataset=name, source="modality", split=split) for name in names)


def alignment(*, trainable: tuple[str, ...], epochs: float) -> StageConfig:
    """Stage 1: captions. The paper trains the projector alone, from a pretrained language model."""
    return StageConfig(
        name="alignment", data=_captions(), trainable=trainable, epochs=epochs, learning_rate=1e-3, batch_size=32
    )


def instruction_tuning(*, epochs: float, learning_rate: float) -> StageConfig:
    """Stage 2: questions and answers; language model and projector are trained, FFNs still dense."""
    return StageConfig(
        name="instruction_tuning",
        data=_questions(),
        trainable=(PROJECTOR, LANGUAGE_MODEL),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=32,
        weight_decay=0.05,
    )


def router(*, per_domain: int) -> RouterConfig:
    """Between the stages: the modality classifier that becomes every MoE layer's frozen gate."""
    return RouterConfig(
        data=_modalities(*RADIOLOGY, "mednist", "path_vqa"),
        # PathVQA has no validation split here.
        held_out=_modalities("slake", "vqa_med_2019", "mednist", split="val") + _modalities("path_vqa", split="test"),
        domains=DOMAINS,
        per_domain=per_domain,
    )


def moe_tuning(*, epochs: float, learning_rate: float) -> StageConfig:
    """Stage 3 as the paper says it: domain experts and meta expert are trained, router and all else frozen."""
    return StageConfig(
        name="moe_tuning",
        data=_questions(),
        trainable=(EXPERTS,),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=32,
        weight_decay=0.05,
    )


def tiny() -> RunConfig:
    """The bundled checkpoint: a DINOv2-small-shaped tower, and a small decoder from scratch; for two CPU cores.

    The decoder has no pretraining, so alignment trains it together with the projector: a frozen random decoder would
    align nothing.
    """
    return RunConfig(
        name="medmoe-tiny",
        seed=20240417,
        architecture=MedMoEConfig(
            name="medmoe-tiny",
            vision_config=VisionConfig(
                model_type="dinov2",
                hidden_size=384,
                intermediate_size=1536,
                num_hidden_layers=10,
                num_attention_heads=6,
                image_size=224,
                patch_size=14,
            ),
            projector_config=ProjectorConfig(downsample_factor=2),
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
            image_processor=ImageProcessorConfig(
                mode="pad", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), background=(0, 0, 0)
            ),
            image_token_id=3,
            expert_domains=DOMAINS,
        ),
        tokenizer_size=4096,
        alignment=alignment(trainable=(PROJECTOR, LANGUAGE_MODEL), epochs=8),
        instruction_tuning=instruction_tuning(epochs=4, learning_rate=1e-3),
        router=router(per_domain=500),
        moe_tuning=moe_tuning(epochs=2, learning_rate=5e-4),
        evaluation=("slake", "vqa_rad"),
    )


def adapter_tuning(*, epochs: float, learning_rate: float) -> StageConfig:
    """Med-MoE-LoRA on a dense base: experts and routers are trained, everything else is frozen."""
    return StageConfig(
        name="adapter_tuning",
        data=_questions(),
        trainable=(ADAPTERS,),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=32,
    )


def _tiny_adapter(*, name: str, layers: tuple[LayerExperts, ...]) -> LoRARunConfig:
    # The paper's 5e-5 and its ancestors' 2e-4 are for models of billions; this one is a thousand times smaller.
    return LoRARunConfig(name=name, seed=20240417, layers=layers, stage=adapter_tuning(epochs=2, learning_rate=1e-3))


def med_moe_lora() -> LoRARunConfig:
    """Med-MoE-LoRA on the dense stage of `tiny`: the paper's schedule for six layers, a quarter of its ranks.

    There is no general data here, so anchors are null: gates that attenuate.
    """
    layers = expand("paper", num_layers=6, anchor_mode="null", ladder=(8, 4, 2))
    return _tiny_adapter(name="medmoe-tiny-med-moe-lora", layers=layers)


def lora_r16() -> LoRARunConfig:
    """Its baseline: ordinary LoRA of rank 16, which is one expert without a router."""
    return _tiny_adapter(name="medmoe-tiny-lora-r16", layers=(explicit((16,), n_anchor=0),) * 6)


RECIPES = {"tiny": tiny}
ADAPTER_RECIPES = {"lora_r16": lora_r16, "med_moe_lora": med_moe_lora}
