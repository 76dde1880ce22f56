"""Make small upstream checkpoints with random weights in every published layout, and compute their forward pass.

The forward pass is written from the layout itself: transformers' decoders take the tensors by upstream's names, and the
MoE layers are computed from upstream's keys. Nothing of the project's model is used.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn import functional as F
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
    StableLmConfig,
    StableLmForCausalLM,
)

HIDDEN, INTERMEDIATE, HEADS, LAYERS, ROWS, EXPERTS = 32, 48, 4, 4, 512, 3
WIDTH, TOWER_BLOCKS = 16, 3
TOWER_OPTIONS: dict[str, Any] = {
    "vision_layers": TOWER_BLOCKS,
    "vision_heads": 2,
    "vision_activation": "quick_gelu",
    "vision_eps": 1e-5,
}
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_TOWER = "model.image_tower.image_tower.vision_model."
_CORPUS = [SYSTEM, "USER: Is there a fracture? ASSISTANT: yes", "What modality is this image? CT MRI X-ray"] * 5


@dataclass(frozen=True)
class Variant:
    """Describe one published form of a checkpoint. residual: none, only the meta expert's names, or both."""

    backbone: str = "phi"
    family: str = "med_moe"
    top_k: int = 1
    residual: str = "none"
    tower: str = "clip"
    dtype: torch.dtype = torch.float32
    hidden: int = HIDDEN
    intermediate: int = INTERMEDIATE
    context: int = 256

    @property
    def moe_layers(self) -> list[int]:
        return [] if self.family == "dense" else list(range(LAYERS))[::2]

    def __str__(self) -> str:
        return "-".join(f"{value}" for value in (self.backbone, self.family, self.top_k, self.residual, self.tower))


def text_config(variant: Variant) -> Any:
    """Return transformers' configuration of the dense decoder."""
    fields: dict[str, Any] = {
        "vocab_size": ROWS,
        "hidden_size": variant.hidden,
        "intermediate_size": variant.intermediate,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": variant.context,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    if variant.backbone == "phi":
        return PhiConfig(
            **fields, hidden_act="gelu_new", layer_norm_eps=1e-5, rope_parameters=rope | {"partial_rotary_factor": 0.5}
        )
    if variant.backbone == "stablelm":
        return StableLmConfig(
            **fields,
            num_key_value_heads=HEADS,
            hidden_act="silu",
            layer_norm_eps=1e-5,
            use_qkv_bias=True,
            rope_parameters=rope | {"partial_rotary_factor": 0.25},
        )
    return LlamaConfig(**fields, num_key_value_heads=2, hidden_act="silu", rms_norm_eps=1e-5, rope_parameters=rope)


def decoder(variant: Variant) -> Any:
    config = text_config(variant)
    if variant.backbone == "phi":
        model = PhiForCausalLM(config)
        model.lm_head = nn.Linear(variant.hidden, ROWS, bias=False)
        return model
    return StableLmForCausalLM(config) if variant.backbone == "stablelm" else LlamaForCausalLM(config)


def tower(variant: Variant) -> Any:
    fields = {
        "hidden_size": WIDTH,
        "intermediate_size": 24,
        "num_hidden_layers": TOWER_BLOCKS,
        "num_attention_heads": 2,
        "patch_size": 4,
    }
    if variant.tower == "siglip":
        # 18 pixels are 4 patches and a strip that none sees, as in the published tower.
        return SiglipVisionModel(
            SiglipVisionConfig(**fields, image_size=18, layer_norm_eps=1e-6, hidden_act="gelu_pytorch_tanh")
        )
    return CLIPVisionModel(CLIPVisionConfig(**fields, image_size=16, layer_norm_eps=1e-5, hidden_act="quick_gelu"))


def upstream_tensors(variant: Variant, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return every tensor under upstream's name, large enough that tokens and experts differ."""
    torch.manual_seed(seed)
    tensors: dict[str, torch.Tensor] = dict(decoder(variant).state_dict())
    for layer in variant.moe_layers:
        mlp = f"model.layers.{layer}.mlp."
        ffn = {name.removeprefix(mlp): tensors.pop(name) for name in list(tensors) if name.startswith(mlp)}
        moe = f"{mlp}deepspeed_moe."
        tensors[f"{moe}gate.wg.weight"] = torch.empty(EXPERTS, variant.hidden)
        if variant.family == "med_moe":
            tensors[f"{moe}gate.wg.bias"] = torch.empty(EXPERTS)
        for expert in range(EXPERTS):
            for name, value in ffn.items():
                tensors[f"{moe}experts.deepspeed_experts.{expert}.{name}"] = torch.empty_like(value)
        if variant.family == "med_moe":
            tensors |= {f"{mlp}meta_moe.{name}": value for name, value in ffn.items()}
        if variant.residual != "none":
            tensors[f"{mlp}coefficient.weight"] = torch.empty(2, variant.hidden)
            tensors[f"{mlp}coefficient.bias"] = torch.empty(2)
    tensors["model.mm_projector.image_spatial_proj.0.weight"] = torch.empty(variant.hidden, WIDTH)
    tensors["model.mm_projector.image_spatial_proj.0.bias"] = torch.empty(variant.hidden)
    tensors["model.mm_projector.image_spatial_proj.2.weight"] = torch.empty(variant.hidden, variant.hidden)
    tensors["model.mm_projector.image_spatial_proj.2.bias"] = torch.empty(variant.hidden)
    tensors |= {_TOWER + name: value for name, value in tower(variant).state_dict().items()}
    for name, value in tensors.items():
        if not name.endswith(("norm.weight", "layernorm.weight", "norm1.weight", "norm2.weight")):
            value.normal_(std=0.8 if ".gate." in name else 0.25)
    if variant.residual == "both":
        tensors |= {
            name.replace(".meta_moe.", ".mlp."): value.clone()
            for name, value in tensors.items()
            if ".meta_moe." in name
        }
    return {name: value.detach().to(variant.dtype).contiguous() for name, value in tensors.items()}


def upstream_config(variant: Variant) -> dict[str, Any]:
    """Return config.json as upstream's trainer writes it."""
    prefix = "llava_" if variant.family == "dense" else "moe_llava_"
    config: dict[str, Any] = {
        "architectures": ["MoELLaVAPhiForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_phi.PhiConfig"},
        "model_type": prefix + {"llama": "mistral"}.get(variant.backbone, variant.backbone),
        "vocab_size": ROWS,
        "hidden_size": variant.hidden,
        "intermediate_size": variant.intermediate,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2 if variant.backbone == "llama" else HEADS,
        "max_position_embeddings": variant.context,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "hidden_act": "gelu_new" if variant.backbone == "phi" else "silu",
        "torch_dtype": "bfloat16",
        "mm_image_tower": "/data/someone/tower",
        "mm_video_tower": None,
        "image_projector_type": "mlp2x_gelu",
        "mm_hidden_size": WIDTH,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
    }
    config |= {
        "phi": {"layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "qk_layernorm": False},
        "stablelm": {"norm_eps": 1e-5, "rope_pct": 0.25, "use_qkv_bias": True},
        "llama": {"rms_norm_eps": 1e-5, "sliding_window": None},
    }[variant.backbone]
    if variant.family != "dense":
        config["moe"] = {
            "moe_enable": True,
            "moe_mode": "sparse",
            "moe_layers_idx": variant.moe_layers,
            "num_experts": [EXPERTS],
            "ep_size": 1,
            "top_k_experts": variant.top_k,
            "capacity_factor": 1.5,
            "eval_capacity_factor": 2.0,
            "min_capacity": 0,
            "use_residual": variant.residual != "none",
            "router_aux_loss_coef": 0.01,
            "train_modules": ["fc1", "fc2", "wg"],
        }
    return config


def write_tokenizer_files(directory: Path, variant: Variant) -> None:
    """Write GPT-2's files for phi and stablelm; for llama a tokenizer.json that prepends <s>."""
    specials = ["<unk>", "<s>", "</s>"] if variant.backbone == "llama" else ["<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if variant.backbone == "llama":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        tokenizer.save(str(directory / "tokenizer.json"))
        roles = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "unk_token": "<unk>"}
    else:
        tokenizer.model.save(str(directory))
        size = tokenizer.get_vocab_size()
        added = {"  ": size} | ({"<|reg0|>": size + 1} if variant.backbone == "stablelm" else {})
        (directory / "added_tokens.json").write_text(json.dumps(added))
        roles = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    (directory / "special_tokens_map.json").write_text(json.dumps(roles))


def write_upstream(
    directory: Path, variant: Variant, *, files: str = "safetensors", tensors: dict[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Write the whole directory and return its tensors. `files`: safetensors, bin, sharded, sharded-bin."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = upstream_tensors(variant) if tensors is None else tensors
    write_weights(directory, tensors, files=files)
    (directory / "config.json").write_text(json.dumps(upstream_config(variant)))
    write_tokenizer_files(directory, variant)
    return tensors


def write_weights(directory: Path, tensors: dict[str, torch.Tensor], *, files: str) -> None:
    single, suffix = ("pytorch_model.bin", ".bin") if files.endswith("bin") else ("model.safetensors", ".safetensors")
    save: Any = torch.save if suffix == ".bin" else save_file
    if not files.startswith("sharded"):
        save(tensors, directory / single)
        return
    names = sorted(tensors)
    index = {}
    for number in range(2):
        file = f"{single.removesuffix(suffix)}-0000{number + 1}-of-00002{suffix}"
        part = names[number::2]
        save({name: tensors[name] for name in part}, directory / file)
        index |= dict.fromkeys(part, file)
    (directory / f"{single}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def edit_config(directory: Path, **fields: Any) -> None:
    """Change fields of config.json; `moe__x` changes x inside moe, and ... removes a field."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    for name, value in fields.items():
        place = config
        if name.startswith("moe__"):
            place, name = config["moe"], name.removeprefix("moe__")
        if value is ...:
            place.pop(name, None)
        else:
            place[name] = value
    path.write_text(json.dumps(config))


class UpstreamMoE(nn.Module):
    """Compute an MoE layer from upstream's keys, one token and one expert at a time."""

    def __init__(self, tensors: dict[str, torch.Tensor], layer: int, variant: Variant) -> None:
        super().__init__()
        self.tensors, self.prefix, self.variant = tensors, f"model.layers.{layer}.mlp.", variant

    def ffn(self, x: torch.Tensor, name: str) -> torch.Tensor:
        part = {key.removeprefix(f"{self.prefix}{name}."): value for key, value in self.tensors.items()}
        if self.variant.backbone == "phi":
            wide = F.gelu(F.linear(x, part["fc1.weight"], part["fc1.bias"]), approximate="tanh")
            return F.linear(wide, part["fc2.weight"], part["fc2.bias"])
        wide = F.silu(F.linear(x, part["gate_proj.weight"])) * F.linear(x, part["up_proj.weight"])
        return F.linear(wide, part["down_proj.weight"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = f"{self.prefix}deepspeed_moe.gate.wg."
        flat = x.reshape(-1, x.shape[-1])
        p = F.linear(flat, self.tensors[f"{gate}weight"], self.tensors.get(f"{gate}bias")).softmax(-1)
        rows = []
        for token, chances in zip(flat, p, strict=True):
            chosen = chances.argsort(descending=True)[: self.variant.top_k]
            weights = chances[chosen] / (chances[chosen].sum() if self.variant.top_k == 2 else 1)
            experts = [self.ffn(token, f"deepspeed_moe.experts.deepspeed_experts.{int(e)}") for e in chosen]
            rows.append(sum(w * y for w, y in zip(weights, experts, strict=True)))
        y = torch.stack(rows)
        if self.variant.family == "med_moe":
            meta = self.ffn(flat, "meta_moe")
            if self.variant.residual != "none":
                at = f"{self.prefix}coefficient."
                c = F.linear(flat, self.tensors[f"{at}weight"], self.tensors[f"{at}bias"]).softmax(-1)
                y = y * c[:, :1] + meta * c[:, 1:]
            y = y + meta
        return y.view_as(x)


@torch.no_grad()
def upstream_logits(
    tensors: dict[str, torch.Tensor], variant: Variant, *, before: list[int], after: list[int], pixels: torch.Tensor
) -> torch.Tensor:
    """Return logits [L, rows] of one prompt around one image [1, 3, size, size], in float32."""
    tensors = {name: value.float() for name, value in tensors.items()}
    variant = replace(variant, dtype=torch.float32)
    vision = tower(variant).eval()
    vision.load_state_dict({n.removeprefix(_TOWER): v for n, v in tensors.items() if n.startswith(_TOWER)})
    # Upstream cuts the first position, class token or not.
    features = vision(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    at = "model.mm_projector.image_spatial_proj."
    image = F.gelu(F.linear(features, tensors[f"{at}0.weight"], tensors[f"{at}0.bias"]))
    image = F.linear(image, tensors[f"{at}2.weight"], tensors[f"{at}2.bias"])
    model = decoder(variant).eval()
    for layer in variant.moe_layers:
        model.model.layers[layer].mlp = UpstreamMoE(tensors, layer, variant)
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    embedding = model.get_input_embeddings()
    embedded = torch.cat([embedding(torch.tensor([before])), image, embedding(torch.tensor([after]))], dim=1)
    logits: torch.Tensor = model(inputs_embeds=embedded).logits[0]
    return logits
