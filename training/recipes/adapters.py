"""Define Med-MoE-LoRA and ordinary LoRA on the dense stage of a size (arXiv 2601.07935).

There is no general data in any of these recipes, so anchors are null: gates that attenuate.
"""

from dataclasses import replace

from medmoe.model.lora.adapter_config import LayerExperts
from medmoe.model.lora.schedule import ordinary_lora, scheduled_layers
from medmoe.training.config import RunConfig, StageConfig
from medmoe.training.lora.config import LoRARunConfig
from medmoe.training.recipes.trainable import ADAPTERS

# The paper's 5e-5 and its ancestors' 2e-4 are for models of billions; these two are a thousand and ten times smaller.
_TINY_RATE, _SMALL_RATE, _PAPER_RATE = 1e-3, 5e-4, 5e-5
_PAPER_BATCH = 128


def med_moe_lora(run: RunConfig, *, stage: StageConfig, ladder: tuple[int, int, int]) -> LoRARunConfig:
    """Return the paper's schedule of experts over the depth of `run`'s model; `ladder` are the ranks within a layer."""
    depth = run.architecture.text_config.num_hidden_layers
    layers = scheduled_layers(depth, anchor_mode="null", ladder=ladder)
    return _adapter(run, "med-moe-lora", stage=stage, layers=layers)


def lora_r16(run: RunConfig, *, stage: StageConfig) -> LoRARunConfig:
    """Return the baseline: ordinary LoRA of rank 16, which is one expert without a router."""
    depth = run.architecture.text_config.num_hidden_layers
    return _adapter(run, "lora-r16", stage=stage, layers=ordinary_lora(16, num_layers=depth))


def tiny_stage(run: RunConfig) -> StageConfig:
    """Return stage 3 with adapters alone, at the tiny model's learning rate."""
    return _stage(run, learning_rate=_TINY_RATE)


def small_stage(run: RunConfig) -> StageConfig:
    """Return stage 3 with adapters alone, at the small model's learning rate."""
    return _stage(run, learning_rate=_SMALL_RATE)


def published_stage(run: RunConfig) -> StageConfig:
    """Return the Med-MoE-LoRA paper's learning rate and batch on stage 3's data; it does not say how many epochs."""
    return StageConfig(
        name="adapter_tuning",
        data=run.moe_tuning.data,
        trainable=(ADAPTERS,),
        epochs=3,
        learning_rate=_PAPER_RATE,
        batch_size=_PAPER_BATCH,
    )


def _stage(run: RunConfig, *, learning_rate: float) -> StageConfig:
    # Data, epochs and batches stay stage 3's, so that methods can be compared. But AdamW: Muon's orthogonalised steps
    # make all of an adapter's few directions grow alike, which wastes its low rank.
    return replace(
        run.moe_tuning,
        name="adapter_tuning",
        trainable=(ADAPTERS,),
        learning_rate=learning_rate,
        weight_decay=0.0,
        optimizer="adamw",
    )


def _adapter(run: RunConfig, suffix: str, *, stage: StageConfig, layers: tuple[LayerExperts, ...]) -> LoRARunConfig:
    return LoRARunConfig(
        name=f"{run.name}-{suffix}", seed=run.seed, layers=layers, stage=stage, modality_labels=run.domains
    )
