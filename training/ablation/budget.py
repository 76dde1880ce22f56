"""Define the budget of compared recipes: data, passes over it, and batches of their last stage.

A comparison is fair only where these agree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from medmoe.model.errors import ConfigError
from medmoe.training.config import StageConfig
from medmoe.training.lora.config import AnyRunConfig, LoRARunConfig

_COMMON = ("data", "epochs", "batch_size", "pack")


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Override fields of the last stage of every recipe; None leaves the recipe's."""

    epochs: float | None = None
    limit: int | None = None
    """At most so many samples of each data entry."""

    def __call__(self, config: AnyRunConfig, *, seed: int) -> AnyRunConfig:
        """Return `config` on this budget, with `seed` for everything random."""
        stage = last_stage(config)
        changes: dict[str, Any] = {}
        if self.epochs is not None:
            changes["epochs"] = self.epochs
        if self.limit is not None:
            changes["data"] = tuple(entry.at_most(self.limit) for entry in stage.data)
        stage = replace(stage, **changes)
        if isinstance(config, LoRARunConfig):
            return replace(config, seed=seed, stage=stage)
        return replace(config, seed=seed, moe_tuning=stage)


def last_stage(config: AnyRunConfig) -> StageConfig:
    """Return the one that differs between methods, and the only one that starts from the common base."""
    return config.stage if isinstance(config, LoRARunConfig) else config.moe_tuning


def check_equal(configs: Mapping[str, AnyRunConfig]) -> None:
    """Raise ConfigError naming the first recipe whose last stage has other data, epochs or batches than the first."""
    names = list(configs)
    for name in names[1:]:
        for field in _COMMON:
            if getattr(last_stage(configs[name]), field) != getattr(last_stage(configs[names[0]]), field):
                raise ConfigError(
                    f"{name} and {names[0]} differ in {field} of their last stage: that would compare budgets, not "
                    "methods; --epochs makes epochs equal"
                )
