"""Define the methods that adapt a dense checkpoint to new tasks, each as a recipe on the same data and batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from medmoe.model.config import MedMoEConfig
from medmoe.model.lora.adapter_config import AnchorMode, LayerExperts
from medmoe.model.lora.layout import backbone_blocks
from medmoe.model.lora.schedule import ordinary_lora, scheduled_layers
from medmoe.training.config import DataConfig, RunConfig, StageConfig
from medmoe.training.lora.config import AnyRunConfig, LoRARunConfig
from medmoe.training.recipes.trainable import ADAPTERS, LANGUAGE_MODEL, PROJECTOR

_RANK = 16
_LADDER, _ANCHOR_RANK = (16, 8, 4), 4
"""Ranks of experts: the highest is that of ordinary LoRA."""
_PACK = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Adaptation:
    """Hold the base and the data that all methods share."""

    base: MedMoEConfig
    new: tuple[DataConfig, ...]
    """Training data of the new tasks."""
    replay: tuple[DataConfig, ...]
    """Training data of the old tasks, for the methods that replay them."""
    epochs: float
    batch_size: int = 8
    learning_rate: float = 2e-4
    """Learning rate of full finetuning."""
    adapter_learning_rate: float = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """Describe one way of adapting a checkpoint."""

    about: str
    build: Callable[[Adaptation], AnyRunConfig]
    replays: bool = False

    def __call__(self, adaptation: Adaptation, *, seed: int) -> AnyRunConfig:
        """Return the recipe of a run."""
        return replace(self.build(adaptation), seed=seed)


def adapter_parameters(layers: Sequence[LayerExperts], base: MedMoEConfig) -> int:
    """Return the parameters of adapters with these experts on the FFNs of `base`, block routers included."""
    _, ffn = backbone_blocks(base.text_config)
    per_rank = sum(linear.in_features + linear.out_features for linear in ffn.linears)
    routers = sum(layer.n_experts * ffn.width + 1 for layer in layers if layer.n_experts > 1)
    return per_rank * sum(layer.total_rank for layer in layers) + routers


def _full(adaptation: Adaptation, *, replay: bool) -> RunConfig:
    name = "full-replay" if replay else "full"
    stage = _stage(adaptation, trainable=(PROJECTOR, LANGUAGE_MODEL), learning_rate=adaptation.learning_rate)
    if replay:
        stage = replace(stage, data=(*stage.data, *adaptation.replay))
    return RunConfig(
        name=name,
        seed=0,
        architecture=adaptation.base.model_copy(update={"name": name}),
        tokenizer_size=None,
        # A run that starts from a base trains its last stage alone.
        alignment=stage,
        instruction_tuning=stage,
        router=None,
        moe_tuning=stage,
        modality_labels=adaptation.base.expert_domains,
        evaluation=(),
    )


def _lora(adaptation: Adaptation) -> LoRARunConfig:
    return _plain(adaptation, f"lora-r{_RANK}", rank=_RANK)


def _lora_matched(adaptation: Adaptation) -> LoRARunConfig:
    rank = _matching_rank(_experts(adaptation.base, anchors="null"), adaptation.base)
    return _plain(adaptation, "lora-matched", rank=rank)


def _lora_matched_replay(adaptation: Adaptation) -> LoRARunConfig:
    rank = _matching_rank(_experts(adaptation.base, anchors="replay"), adaptation.base)
    return replace(_plain(adaptation, "lora-matched-replay", rank=rank), replay=adaptation.replay)


def _null_anchors(adaptation: Adaptation) -> LoRARunConfig:
    return _adapters(adaptation, "med-moe-lora-null", layers=_experts(adaptation.base, anchors="null"))


def _replay_anchors(adaptation: Adaptation) -> LoRARunConfig:
    layers = _experts(adaptation.base, anchors="replay")
    found = _adapters(adaptation, "med-moe-lora-replay", layers=layers)
    return replace(found, anchor_mode="replay", isolate="anchors", replay=adaptation.replay)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "full": Method(about="every weight of projector and language model", build=partial(_full, replay=False)),
        f"lora-r{_RANK}": Method(about=f"LoRA of rank {_RANK}", build=_lora),
        "lora-matched": Method(about="LoRA with as many parameters as med-moe-lora-null", build=_lora_matched),
        "med-moe-lora-null": Method(about="Med-MoE-LoRA with null anchors", build=_null_anchors),
        "med-moe-lora-replay": Method(
            about="Med-MoE-LoRA with replay anchors, which learn from old tasks alone",
            build=_replay_anchors,
            replays=True,
        ),
        "lora-matched-replay": Method(
            about="control: LoRA with as many parameters and the same replay as med-moe-lora-replay",
            build=_lora_matched_replay,
            replays=True,
        ),
        "full-replay": Method(
            about="control: every weight, with the same replay", build=partial(_full, replay=True), replays=True
        ),
    }
)


def _experts(base: MedMoEConfig, *, anchors: AnchorMode) -> tuple[LayerExperts, ...]:
    """Return the paper's schedule over the depth of `base`."""
    depth = base.text_config.num_hidden_layers
    return scheduled_layers(depth, anchor_mode=anchors, ladder=_LADDER, anchor_rank=_ANCHOR_RANK)


def _matching_rank(layers: Sequence[LayerExperts], base: MedMoEConfig) -> int:
    """Return the rank at which ordinary LoRA has most nearly as many parameters as `layers`."""
    plain = ordinary_lora(1, num_layers=base.text_config.num_hidden_layers)
    return round(adapter_parameters(layers, base) / adapter_parameters(plain, base))


def _plain(adaptation: Adaptation, name: str, *, rank: int) -> LoRARunConfig:
    layers = ordinary_lora(rank, num_layers=adaptation.base.text_config.num_hidden_layers)
    return _adapters(adaptation, name, layers=layers)


def _adapters(adaptation: Adaptation, name: str, *, layers: tuple[LayerExperts, ...]) -> LoRARunConfig:
    stage = _stage(adaptation, trainable=(ADAPTERS,), learning_rate=adaptation.adapter_learning_rate)
    return LoRARunConfig(name=name, seed=0, layers=layers, stage=stage, modality_labels=adaptation.base.expert_domains)


def _stage(adaptation: Adaptation, *, trainable: tuple[str, ...], learning_rate: float) -> StageConfig:
    return StageConfig(
        name="adaptation",
        data=adaptation.new,
        trainable=trainable,
        epochs=adaptation.epochs,
        learning_rate=learning_rate,
        batch_size=adaptation.batch_size,
        pack=_PACK,
        group_by_length=True,
    )
