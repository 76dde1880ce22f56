"""Map tensor names to upstream's, and give reasons for upstream tensors that are dropped.

Source of the names: DeepSpeed 0.9.5's `deepspeed_moe`, Med-MoE's `meta_moe` and `coefficient`, LLaVA's towers.
"""

import re
from collections.abc import Iterable

TOWER_PREFIX = "model.image_tower.image_tower.vision_model."
_PROJECTOR_PREFIX = "model.mm_projector.image_spatial_proj."
_INSIDE_MOE = {
    ".mlp.gate.": ".mlp.deepspeed_moe.gate.wg.",
    ".mlp.experts.": ".mlp.deepspeed_moe.experts.deepspeed_experts.",
    ".mlp.shared_expert.": ".mlp.meta_moe.",
}
NUMBER = r"(0|[1-9][0-9]{0,5})"
"""A layer, block or expert. Other spellings of a number, and numbers far beyond any model, are unknown names."""
RESIDUAL_COPY = re.compile(r"(model\.layers\.\d+\.mlp)\.mlp\.(.+)")
_TOWER_BLOCK = re.compile(rf"encoder\.layers\.{NUMBER}\.")
_VIDEO = re.compile(r"model\.(video_tower\.|mm_projector\.video_)")
_DROPPED = (
    (
        re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)"),
        "rotary table, computed anew",
    ),
    (re.compile(r".*\bembeddings\.position_ids"), "counts 0, 1, 2, …, computed anew"),
)


def upstream_name(name: str, *, tower_prefix: str = TOWER_PREFIX) -> str:
    """Return upstream's name of the tensor that a checkpoint of ours calls `name`."""
    part, rest = name.split(".", 1)
    if part == "vision_tower":
        return tower_prefix + rest.removeprefix("backbone.")
    if part == "projector":
        # The GELU between the two layers is module 1 of upstream's Sequential.
        return _PROJECTOR_PREFIX + rest.replace("linear_1.", "0.").replace("linear_2.", "2.")
    for ours, theirs in _INSIDE_MOE.items():
        rest = rest.replace(ours, theirs)
    return rest


def reason_to_drop(name: str, *, tower_prefix: str, tower_blocks: int, phi: bool, video: bool) -> str | None:
    """Return why the upstream tensor `name` has no place in ours; None when no reason is known, which is an error.

    `tower_blocks` are the used ones; `video` says whether the checkpoint claims a video tower.
    """
    for pattern, reason in _DROPPED:
        if pattern.fullmatch(name):
            return reason
    if name.startswith(tower_prefix):
        return _unused_in_tower(name.removeprefix(tower_prefix), blocks=tower_blocks)
    if phi and name == "lm_head.bias":
        return "upstream's Phi class has no bias at the output head and discards it"
    if not video and _VIDEO.match(name):
        return "part of the video tower, which config.json switches off"
    return None


def _unused_in_tower(name: str, *, blocks: int) -> str | None:
    if (block := _TOWER_BLOCK.match(name)) and int(block[1]) >= blocks:
        return f"vision block beyond the {blocks} that mm_vision_select_layer uses"
    if name.startswith(("post_layernorm.", "head.")):
        return "comes after the layer that mm_vision_select_layer uses"
    return None


def indices(names: Iterable[str], pattern: str) -> list[int]:
    """Return the distinct numbers that the one group of `pattern` matches at the start of `names`, ascending."""
    compiled = re.compile(pattern)
    return sorted({int(match[1]) for name in names if (match := compiled.match(name))})
