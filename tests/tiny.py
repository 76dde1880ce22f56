"""A complete checkpoint small enough for a test: random weights, real tokenizer, every kind of layer."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from medmoe.model.config import (
    ImageProcessorConfig,
    MedMoEConfig,
    ProjectorConfig,
    TextConfig,
    VisionConfig,
)

SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<image>"]
_CORPUS = [
    "USER: Is there a fracture in the chest X-ray? ASSISTANT: yes no normal pneumonia",
    "What modality is used to take this image? CT MRI X-ray left right lung liver brain",
    "Which of these is shown: CT, MRI, X-ray?",
]


def tiny_config(**text: object) -> MedMoEConfig:
    """32-pixel images in 4 tokens; 3 layers, of which 0 and 2 are MoE with 4 experts."""
    fields: dict[str, object] = {
        "model_type": "llama",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "moe_layers": (0, 2),
    }
    return MedMoEConfig(
        name="tiny",
        dtype="float32",
        vision_config=VisionConfig(
            model_type="dinov2",
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        projector_config=ProjectorConfig(downsample_factor=2),
        text_config=TextConfig.model_validate(fields | text),
        image_processor=ImageProcessorConfig(
            mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), background=(124, 116, 104)
        ),
        image_token_id=SPECIAL_TOKENS.index("<image>"),
        expert_domains=("CT", "MRI", "X-ray", "pathology"),
    )


def tiny_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS * 5, trainer)
    return tokenizer


def save_tiny_checkpoint(directory: Path, *, seed: int = 0, **text: object) -> Path:
    """Write the whole directory; the weights are large enough that experts and tokens really differ."""
    import torch

    from medmoe.model.checkpoint.io import save_checkpoint
    from medmoe.model.checkpoint.tokenizer_files import write_tokenizer
    from medmoe.model.medmoe import MedMoE

    torch.manual_seed(seed)
    model = MedMoE(tiny_config(**text)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.5 if ".gate." in name else 0.2)
            elif name.endswith("gate.bias"):
                parameter.normal_(std=0.5)
    files = write_tokenizer(tiny_tokenizer(), directory.parent / f"{directory.name}-tokenizer", config=model.config)
    save_checkpoint(model, directory, tokenizer_files=files)
    return directory
