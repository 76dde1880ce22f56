"""List every recipe by its name on the command line, with one line of description."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from medmoe.training.config import RunConfig, StageConfig
from medmoe.training.lora.config import AnyRunConfig, LoRARunConfig
from medmoe.training.recipes import baselines
from medmoe.training.recipes.adapters import lora_r16, med_moe_lora, published_stage, small_stage, tiny_stage
from medmoe.training.recipes.image_disjoint import image_disjoint
from medmoe.training.recipes.published import phi_2, stablelm_1_6b
from medmoe.training.recipes.small import small
from medmoe.training.recipes.tiny import tiny


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A named configuration."""

    about: str
    build: Callable[[], AnyRunConfig]
    licence: str | None = None
    """SPDX name, where nothing but open weights and data goes into the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Size:
    """A size's own recipe, and what its adapters differ in."""

    about: str
    build: Callable[[], RunConfig]
    adapter_stage: Callable[[RunConfig], StageConfig]
    ladder: tuple[int, int, int]


_SIZES = {
    "tiny": _Size(
        about="a small decoder from scratch on open data: the bundled checkpoint, for CPUs",
        build=tiny,
        adapter_stage=tiny_stage,
        ladder=(8, 4, 2),
    ),
    "small": _Size(
        about="SmolLM2-135M on open data, 15 MoE layers",
        build=small,
        adapter_stage=small_stage,
        ladder=(16, 8, 4),
    ),
    "stablelm-1.6b": _Size(
        about="as published: StableLM-2-1.6B, CLIP-L/336, LLaVA-Med and three VQA sets",
        build=stablelm_1_6b,
        adapter_stage=published_stage,
        ladder=(32, 16, 8),
    ),
    "phi-2": _Size(
        about="as published: Phi-2, CLIP-L/336, LLaVA-Med and three VQA sets",
        build=phi_2,
        adapter_stage=published_stage,
        ladder=(32, 16, 8),
    ),
}
_LICENCES = {"tiny": "Apache-2.0"}
_UPSTREAM = {"stablelm-1.6b": stablelm_1_6b, "phi-2": phi_2}
_BASELINES = {
    "dense-sft": ("no experts: stage 3 trains the dense FFNs", baselines.dense_sft),
    "moe": ("MoE-LLaVA: no meta expert, learned gates, top-2", baselines.moe),
    "moe-without-meta": ("Med-MoE without its meta expert", baselines.moe_without_meta),
    "moe-learned-router": ("Med-MoE with gates that learn in stage 3", baselines.moe_learned_router),
}


def _recipes() -> dict[str, Recipe]:
    found: dict[str, Recipe] = {}
    for name, size in _SIZES.items():
        found[name] = Recipe(about=size.about, build=size.build, licence=_LICENCES.get(name))
        if name in _UPSTREAM:
            found[f"{name}-upstream"] = Recipe(
                about="what upstream's code trains in stage 3: dense FFNs and projector too",
                build=partial(_UPSTREAM[name], "upstream"),
            )
        for suffix, (about, baseline) in _BASELINES.items():
            found[f"{name}-{suffix}"] = Recipe(about=about, build=partial(_derive, size, baseline))
        if name not in _UPSTREAM:
            found[f"{name}-image-disjoint"] = Recipe(
                about="without any image of VQA-RAD's test split, to be measured on images it has not seen",
                build=partial(_disjoint, size),
            )
        found[f"{name}-lora-r16"] = Recipe(
            about="an adapter on --base: ordinary LoRA of rank 16", build=partial(_plain_adapter, size)
        )
        found[f"{name}-med-moe-lora"] = Recipe(
            about="an adapter on --base: Med-MoE-LoRA, the paper's schedule", build=partial(_adapter, size)
        )
    return found


def _derive(size: _Size, baseline: Callable[[RunConfig], RunConfig]) -> RunConfig:
    return baseline(size.build())


def _disjoint(size: _Size) -> RunConfig:
    return image_disjoint(size.build(), "vqa_rad")


def _plain_adapter(size: _Size) -> LoRARunConfig:
    run = size.build()
    return lora_r16(run, stage=size.adapter_stage(run))


def _adapter(size: _Size) -> LoRARunConfig:
    run = size.build()
    return med_moe_lora(run, stage=size.adapter_stage(run), ladder=size.ladder)


RECIPES: Mapping[str, Recipe] = MappingProxyType(_recipes())
