"""Define the options of a conversion, for facts that the checkpoint omits or states wrongly."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Template = Literal["phi", "stablelm", "qwen", "openchat", "mistral", "minicpm", "single_question"]
"""Upstream's keys; single_question for a checkpoint that never saw a second question."""


@dataclass(frozen=True)
class Options:
    """State facts about a checkpoint, which must state itself what is None or empty here."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: the one that most of the weights have."""
    name: str | None = None
    """The model's name in answers; None is the target directory's."""
    top_k: int | None = None
    image_mode: Literal["pad", "crop"] | None = None
    vision_tower: Path | None = None
    """A transformers CLIP or SigLIP directory: what shapes do not tell, and weights where the checkpoint has none."""
    vision_layers: int | None = None
    """Blocks that the whole tower has, used or not: blocks missing at its end show in no shape."""
    vision_heads: int | None = None
    vision_activation: Literal["gelu", "quick_gelu", "gelu_pytorch_tanh"] | None = None
    vision_eps: float | None = None
    vision_image_size: int | None = None
    template: Template | None = None
    """The prompt template; None assumes upstream's."""
    eos_token: str | None = None
    pad_token: str | None = None
    cut_rows: bool = False
    """Cut the embedding to the tokenizer's size even where padding does not explain the difference."""
    expert_domains: tuple[str, ...] = ()
    """What each expert was trained for, in order; upstream recorded it nowhere."""
    verify: bool = False
    """Compare the safetensors with the .bin beside them."""
    overwrite: bool = False
