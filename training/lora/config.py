"""Define the recipe of a Med-MoE-LoRA run: the adapters, their losses, and one stage of training on a dense base."""

from dataclasses import dataclass
from typing import Literal

from medmoe.model.lora.adapter_config import Isolation, LayerExperts, RouterScope
from medmoe.training.config import DataConfig, RunConfig, StageConfig, check_run, recipe_json

Balancing = Literal["target", "loramoe"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GateLossConfig:
    """Weights of what is added to the answer's cross-entropy; starting values, not evidence."""

    balance: float = 0.01
    """Weight of CV^2 over specialists."""
    preservation: float = 0.3
    """Weight of the anchors' target; nothing is added when no sample is of the general domain."""
    preservation_form: Balancing = "target"
    delta: float = 0.5
    """How far the anchors' share is pulled apart between general and medical samples."""
    divergence: float = 0.0
    """Weight of KL to the base model's answers on general samples; costs a second forward."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRARunConfig:
    """Configure an adapter on a dense checkpoint whose depth is that of `layers`."""

    name: str
    seed: int
    layers: tuple[LayerExperts, ...]
    stage: StageConfig
    replay: tuple[DataConfig, ...] = ()
    """Data that the base was trained on: samples of the general domain, trained on beside the stage's own."""
    losses: GateLossConfig = GateLossConfig()
    anchor_mode: Literal["null", "replay"] = "null"
    router_scope: RouterScope = "block"
    attention: bool = False
    """Adapt q, k, v and the output projection too."""
    isolate: Isolation = "anchors"
    dropout: float = 0.05
    expert_dropout: float = 0.1
    modality_labels: tuple[str, ...] = ()
    """What questions of source modality offer; empty leaves it to the base's expert_domains."""

    def __post_init__(self) -> None:
        """Raise ValueError for weight decay, which would shrink routers and experts that see no gradient, and for
        several seeds, whose adapters have no mean: products of A and B are not linear in both; and as `check_run`.
        """
        check_run(self.name, self.seed)
        if self.stage.seeds != 1:
            raise ValueError("adapters are trained with one seed")
        if self.stage.weight_decay:
            raise ValueError("adapters and routers are trained without weight decay")

    def to_json(self) -> str:
        return recipe_json(self)


AnyRunConfig = RunConfig | LoRARunConfig
