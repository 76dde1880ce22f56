"""Define the published sizes with their hyperparameters: Med-MoE on StableLM-2-1.6B and on Phi-2.

Sources: arXiv 2404.10237 tables 11 and 12, and upstream's scripts (`scripts/train_scripts`), of which the batches are
those of four GPUs. Data go by the published files' names: images lie beside them, as their records say. Upstream pads
images from the second stage on and crops them in the first; one checkpoint has one preprocessing here, padding.
"""

from medmoe.model.config import ImageProcessorConfig, MedMoEConfig, PromptConfig, TextConfig, VisionConfig
from medmoe.training.config import DataConfig, RunConfig, Source
from medmoe.training.recipes.open_data import DOMAINS, modalities
from medmoe.training.recipes.stages import alignment, instruction_tuning, moe_tuning, router
from medmoe.training.recipes.trainable import MoETuningMode

ALIGNMENT_FILE = "llava_med_alignment_500k_filter.json"
INSTRUCT_FILE = "llava_med_instruct_60k_inline_mention_filter.json"
QUESTIONS_FILE = "3vqa/train_all.json"
_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)


def stablelm_1_6b(mode: MoETuningMode = "paper") -> RunConfig:
    """Return Med-MoE on StableLM-2-1.6B: 24 layers, of which 12 are MoE."""
    text = TextConfig(
        model_type="stablelm",
        # Arcade100k's tokens; the embedding's 63 rows beyond them are padding and cut.
        vocab_size=100289,
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
    return _published("medmoe-stablelm-1.6b", text, mode=mode)


def phi_2(mode: MoETuningMode = "paper") -> RunConfig:
    """Return Med-MoE on Phi-2: 32 layers, of which 16 are MoE."""
    text = TextConfig(
        model_type="phi",
        # CodeGen's tokens and the padding <|extra_0|> that upstream adds, 50295; the embedding has 51,200 rows.
        vocab_size=50296,
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
    return _published("medmoe-phi-2", text, mode=mode)


def questions() -> tuple[DataConfig, ...]:
    """Return VQA-RAD, SLAKE and PathVQA in upstream's one file."""
    return (_file(QUESTIONS_FILE, source="vqa"),)


def _published(name: str, text: TextConfig, *, mode: MoETuningMode) -> RunConfig:
    name = name if mode == "paper" else f"{name}-upstream"
    return RunConfig(
        name=name,
        seed=42,
        architecture=MedMoEConfig(
            name=name,
            vision_config=clip_large(),
            text_config=text,
            image_processor=ImageProcessorConfig(
                mode="pad",
                mean=(0.48145466, 0.4578275, 0.40821073),
                std=(0.26862954, 0.26130258, 0.27577711),
                background=(122, 116, 104),
            ),
            prompt=PromptConfig(system=_SYSTEM),
            image_token_id=text.vocab_size,
            expert_domains=DOMAINS,
        ),
        tokenizer_size=None,
        alignment=alignment((_file(ALIGNMENT_FILE, source="captions"),), epochs=1, batch_size=32),
        instruction_tuning=instruction_tuning(
            (_file(INSTRUCT_FILE, source="vqa"),), epochs=3, learning_rate=2e-5, batch_size=64, group_by_length=True
        ),
        # LLaVA-Med's own domains of each figure are the labels. Upstream's 1,000 images are in no published file.
        router=router(
            (_file(INSTRUCT_FILE, source="modality"),),
            held_out=modalities("slake", split="val") + modalities("path_vqa", split="test"),
            domains=DOMAINS,
            per_domain=250,
        ),
        moe_tuning=moe_tuning(questions(), epochs=9, learning_rate=2e-5, batch_size=64, mode=mode),
        evaluation=("slake", "vqa_rad", "path_vqa"),
    )


def clip_large() -> VisionConfig:
    """Return openai/clip-vit-large-patch14-336 without its last block: upstream reads layer -2."""
    return VisionConfig(
        model_type="clip",
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=23,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        layer_norm_eps=1e-5,
        hidden_act="quick_gelu",
    )


def _file(name: str, *, source: Source) -> DataConfig:
    """Return a published file. All of them refer to images that are not published."""
    return DataConfig(dataset=name, source=source, bad_records="leave_out")
