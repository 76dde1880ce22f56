"""Make a complete checkpoint small enough for a test: random weights, real tokenizer, every kind of layer."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from medmoe.model.config import (
    ImageProcessorConfig,
    MedMoEConfig,
    ProjectorConfig,
    TextConfig,
    VisionConfig,
)

if TYPE_CHECKING:
    from medmoe.model.medmoe import MedMoE

SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<image>"]
_CORPUS = [
    "USER: Is there a fracture in the chest X-ray? ASSISTANT: yes no normal pneumonia",
    "What modality is used to take this image? CT MRI X-ray left right lung liver brain",
    "Which of these is shown: CT, MRI, X-ray?",
]


_BACKBONES: dict[str, dict[str, object]] = {
    "llama": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    # Phi-2's and StableLM-2's own shares of rotated dimensions.
    "phi": {"num_key_value_heads": 2, "partial_rotary_factor": 0.4, "hidden_size": 160},
    "stablelm": {"num_key_value_heads": 2, "partial_rotary_factor": 0.25, "qkv_bias": True},
}
_TOWERS: dict[str, dict[str, object]] = {
    "dinov2": {},
    "clip": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "siglip": {"hidden_act": "gelu_pytorch_tanh", "image_size": 36},
}


def tiny_config(
    *,
    tower: str = "dinov2",
    downsample_factor: int = 2,
    input_norm: str = "none",
    out_of_vocabulary: bool = False,
    **text: object,
) -> MedMoEConfig:
    """Return a config of 32-pixel images in 4 tokens and 3 layers, of which 0 and 2 are MoE with 4 experts.

    `text` overrides fields of TextConfig; its `model_type` brings the family's own shape. With `out_of_vocabulary` the
    image token is the first id after the vocabulary.
    """
    family = str(text.get("model_type", "llama"))
    fields: dict[str, object] = {
        "model_type": "llama",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "moe_layers": (0, 2),
    }
    vision: dict[str, object] = {
        "model_type": tower,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "drop_first_patch": tower == "siglip" and downsample_factor == 1,
    }
    text_config = TextConfig.model_validate(fields | _BACKBONES[family] | text)
    return MedMoEConfig(
        name="tiny",
        dtype="float32",
        vision_config=VisionConfig.model_validate(vision | _TOWERS[tower]),
        projector_config=ProjectorConfig.model_validate(
            {"downsample_factor": downsample_factor, "input_norm": input_norm}
        ),
        text_config=text_config,
        image_processor=ImageProcessorConfig(
            mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), background=(124, 116, 104)
        ),
        image_token_id=text_config.vocab_size if out_of_vocabulary else SPECIAL_TOKENS.index("<image>"),
        expert_domains=("CT", "MRI", "X-ray", "pathology"),
    )


def tiny_tokenizer(config: MedMoEConfig | None = None) -> Tokenizer:
    """Return the tokenizer of `config` with an image token outside the vocabulary."""
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
    if config is None or config.image_token_id < config.text_config.vocab_size:
        return tokenizer
    # The tokenizer of such a checkpoint fills the vocabulary, so that the image comes next; and does not spell <image>.
    fields = json.loads(tokenizer.to_str())
    fields["added_tokens"] = [token for token in fields["added_tokens"] if token["content"] != "<image>"]
    vocabulary = fields["model"]["vocab"]
    vocabulary["<unused>"] = vocabulary.pop("<image>")
    for filler in range(len(vocabulary), config.text_config.vocab_size):
        vocabulary[f"<unused{filler}>"] = filler
    tokenizer = Tokenizer.from_str(json.dumps(fields))
    tokenizer.add_special_tokens(["<image>"])
    return tokenizer


def tiny_model(*, std: float = 0.2, **shape: Any) -> "MedMoE":
    """Return a model with random matrices, always the same; `shape` is what tiny_config takes."""
    import torch

    from medmoe.model.medmoe import MedMoE

    torch.manual_seed(0)
    model = MedMoE(tiny_config(**shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=std)
    return model


def save_tiny_checkpoint(directory: Path, *, seed: int = 0, tower_shard: bool = False, **shape: Any) -> Path:
    """Write the whole directory; the weights are large enough that experts and tokens really differ.

    `tower_shard` is what save_checkpoint takes, `shape` what tiny_config takes.
    """
    import torch

    from medmoe.model.checkpoint.io import save_checkpoint
    from medmoe.model.checkpoint.tokenizer_files import write_tokenizer
    from medmoe.model.medmoe import MedMoE

    torch.manual_seed(seed)
    model = MedMoE(tiny_config(**shape)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.5 if ".gate." in name or ".coefficient." in name else 0.2)
            elif "input_norm.weight" in name:
                parameter.normal_(mean=1.0, std=0.2)
            elif name.endswith("bias"):
                parameter.normal_(std=0.5 if "gate.bias" in name or ".coefficient." in name else 0.2)
    files = write_tokenizer(
        tiny_tokenizer(model.config), directory.parent / f"{directory.name}-tokenizer", config=model.config
    )
    save_checkpoint(model, directory, tokenizer_files=files, tower_shard=tower_shard)
    return directory
