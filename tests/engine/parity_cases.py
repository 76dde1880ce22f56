"""Define a tiny random checkpoint for each combination of backbone and method that is served, and its questions.

The test and the process that holds the engines both import it.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from medmoe.model.config import CONFIG_FILE, MedMoEConfig
from medmoe.model.conversion.converter import convert
from medmoe.model.conversion.options import Options
from medmoe.model.files.weight_files import WEIGHTS_FILE
from medmoe.model.lora.checkpoint import base_identity, save_adapted
from tests.support.checkpoints.tiny import save_tiny_checkpoint
from tests.support.checkpoints.tiny_lora import random_tensors, tiny_adapter
from tests.support.checkpoints.upstream import EXPERTS, TOWER_OPTIONS, Variant, upstream_tensors, write_upstream

PROMPTS = 8
MAX_TOKENS = 10
_DAMPING = 0.6
"""On the decoder's matrices. With tiny.py's larger ones the reference in float32 is itself 1e-4 from float64."""

_BACKBONES: dict[str, dict[str, Any]] = {
    # Four heads of 32, two of keys and values.
    "llama": {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2},
    "stablelm": {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2},
    # Heads of 80, of which 32 rotate, as in Phi-2.
    "phi": {"hidden_size": 160, "num_attention_heads": 2, "num_key_value_heads": 2},
}
_TOP_2 = {"num_experts_per_tok": 2, "renormalize": True}
_METHODS: dict[str, dict[str, Any]] = {
    "dense": {"moe_layers": ()},
    "Med-MoE top-1": {},
    "Med-MoE top-2": _TOP_2,
    "Med-MoE residual": _TOP_2 | {"residual": True},
    "MoE-LLaVA": _TOP_2 | {"gate_bias": False, "shared_expert": False},
}
# The rest of what a checkpoint can be, spread over the rows.
_ALSO: dict[tuple[str, str], dict[str, Any]] = {
    ("llama", "Med-MoE top-1"): {"tower": "clip"},
    ("llama", "dense"): {"input_norm": "layer_norm"},
    ("llama", "Med-MoE top-2"): {"tie_word_embeddings": False, "renormalize": False},
    ("llama", "MoE-LLaVA"): {"tower": "clip", "downsample_factor": 1, "out_of_vocabulary": True},
    ("stablelm", "Med-MoE top-1"): {"tower": "clip", "downsample_factor": 1, "out_of_vocabulary": True},
    ("stablelm", "Med-MoE residual"): {"num_experts_per_tok": 1, "renormalize": False},
    ("stablelm", "MoE-LLaVA"): {"tower": "siglip", "downsample_factor": 1, "out_of_vocabulary": True},
    ("stablelm", "dense"): {"qkv_bias": False, "tie_word_embeddings": True},
    ("phi", "Med-MoE top-1"): {"tower": "clip", "downsample_factor": 1, "out_of_vocabulary": True},
    # No multiple of the 32 rows that the CPU kernel keeps together.
    ("phi", "Med-MoE residual"): {"intermediate_size": 144, "input_norm": "layer_norm"},
    ("phi", "MoE-LLaVA"): {"tower": "siglip", "downsample_factor": 1, "out_of_vocabulary": True},
}
_LORA = {
    "Med-MoE-LoRA, FFN": {
        "llama": {"anchor_mode": "null"},
        "stablelm": {},
        "phi": {"router_scope": "module"},
    },
    "Med-MoE-LoRA, FFN + attention": {
        "llama": {"router_scope": "module"},
        "stablelm": {"anchor_mode": "null"},
        "phi": {},
    },
}
# Heads of 32: the smallest that vLLM's attention takes.
_SIZES: dict[str, Any] = {"hidden": 128, "intermediate": 64, "context": 512}
_CONVERTED = [
    Variant(backbone="llama", family="moe_llava", top_k=2, **_SIZES),
    Variant(backbone="stablelm", family="med_moe", top_k=1, **_SIZES),
    Variant(backbone="phi", family="med_moe", top_k=2, residual="meta", dtype=torch.bfloat16, **_SIZES),
]
_CROPPED = {("phi", "Med-MoE top-2"), ("stablelm", "Med-MoE top-1")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One row of the table."""

    backbone: str
    method: str
    shape: Mapping[str, Any] = field(default_factory=dict)
    """What tests.support.checkpoints.tiny.tiny_config takes."""
    cropped: bool = False
    adapter: Mapping[str, Any] | None = None
    """What tests.support.checkpoints.tiny_lora.tiny_adapter takes, of a dense model with adapters."""
    upstream: Variant | None = None
    """Of a checkpoint in upstream's layout, which is converted."""

    @property
    def name(self) -> str:
        return f"{self.backbone}, {self.method}"

    @property
    def directory(self) -> str:
        return self.name.lower().replace(",", "").replace(" +", "").replace(" ", "-")

    @property
    def experts(self) -> int:
        return 4 if self.upstream is None else EXPERTS

    @property
    def also(self) -> str:
        """What this row differs in from the plain form, in words."""
        if self.upstream is not None:
            of = self.upstream
            residual = ["residual"] if of.residual != "none" else []
            dtype = str(of.dtype).removeprefix("torch.")
            return ", ".join([of.family, f"top-{of.top_k}", *residual, of.tower, dtype])
        shape = self.shape
        words = [str(shape.get("tower", "dinov2")), "crop" if self.cropped else "pad"]
        words += ["image token out of vocabulary"] if shape.get("out_of_vocabulary") else []
        words += [f"top-{shape.get('num_experts_per_tok', 1)}"] if "residual" in self.method else []
        words += ["not renormalised"] if shape.get("num_experts_per_tok") == 2 and not shape["renormalize"] else []
        if self.adapter is not None:
            words.append(f"router per {self.adapter.get('router_scope', 'block')}")
            words.append(f"{self.adapter.get('anchor_mode', 'replay')} anchors")
        return ", ".join(words)

    def save(self, parent: Path) -> Path:
        """Write the checkpoint below `parent`; returns its directory. The same weights whenever it is called."""
        if self.upstream is not None:
            source, target = parent / f"{self.directory}-upstream", parent / self.directory
            tensors = upstream_tensors(self.upstream)
            for name, tensor in tensors.items():
                if name.startswith(("model.layers.", "lm_head")) and tensor.dim() == 2 and ".gate." not in name:
                    tensor *= _DAMPING
            write_upstream(source, self.upstream, files="sharded-bin", tensors=tensors)
            convert(source, target, Options(**TOWER_OPTIONS))
            return target
        seed = zlib.crc32(self.name.encode())
        plain = parent / f"{self.directory}-base" if self.adapter is not None else parent / self.directory
        save_tiny_checkpoint(plain, seed=seed, model_type=self.backbone, **self.shape)
        _damp(plain / WEIGHTS_FILE)
        if self.cropped:
            path = plain / CONFIG_FILE
            fields = json.loads(path.read_text())
            fields["image_processor"]["mode"] = "crop"
            path.write_text(json.dumps(fields))
        if self.adapter is None:
            return plain
        base = MedMoEConfig.from_directory(plain)
        config = tiny_adapter(base, base=base_identity(plain), **self.adapter)
        tensors = random_tensors(config, base, seed=seed)
        tensors = {name: tensor * (_DAMPING**2 if "lora_B" in name else 1) for name, tensor in tensors.items()}
        save_adapted(parent / self.directory, config, tensors, base=plain)
        return parent / self.directory


def cases() -> list[Case]:
    """All rows, one backbone after the other."""
    adapted = [
        Case(
            backbone=backbone,
            method=method,
            shape=_BACKBONES[backbone] | {"moe_layers": ()},
            adapter={"attention": "attention" in method} | fields,
        )
        for method, by_backbone in _LORA.items()
        for backbone, fields in by_backbone.items()
    ]
    plain = [
        Case(
            backbone=backbone,
            method=method,
            shape=_BACKBONES[backbone] | fields | _ALSO.get((backbone, method), {}),
            cropped=(backbone, method) in _CROPPED,
        )
        for backbone in _BACKBONES
        for method, fields in _METHODS.items()
    ]
    converted = [Case(backbone=variant.backbone, method="converted", upstream=variant) for variant in _CONVERTED]
    return sorted(plain + adapted + converted, key=lambda case: list(_BACKBONES).index(case.backbone))


def _damp(path: Path) -> None:
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.startswith("language_model.") and tensor.dim() == 2 and ".gate." not in name:
            tensor *= _DAMPING
    save_file(tensors, path, metadata={"format": "pt"})


def image(number: int) -> Image.Image:
    """Noise of its own size and shape."""
    noise = np.random.default_rng(number)
    width, height = noise.integers(20, 60, 2)
    return Image.fromarray(noise.integers(0, 255, (height, width, 3), dtype=np.uint8))


# From shorter than one cache block to several.
QUESTIONS = [f"Is there a fracture in region {number}{' of the lung' * 4 * number}?" for number in range(PROMPTS)]
IMAGES = [image(number) for number in range(PROMPTS)]
