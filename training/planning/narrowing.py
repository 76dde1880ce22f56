"""Narrow a recipe to some datasets, epochs and samples."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from medmoe.model.errors import ConfigError
from medmoe.training.config import DataConfig, RouterConfig, Source, StageConfig
from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.errors import DataError
from medmoe.training.lora.config import AnyRunConfig, LoRARunConfig

_SOURCES: tuple[Source, ...] = ("vqa", "classification")


def narrowed(
    config: AnyRunConfig,
    *,
    root: Path,
    datasets: Sequence[str],
    epochs: float | None = None,
    limit: int | None = None,
    whole: bool = True,
) -> AnyRunConfig:
    """Return the recipe with the data entries of `datasets` alone, `epochs` in every stage, and at most `limit` samples
    of each entry.

    A dataset that the recipe does not know is added to its last stages, as questions and as labels. `whole`: the
    stages before the last one are trained too. Raises ConfigError for a stage that is left without data, and DataError
    for a dataset that cannot be read.
    """
    recipe_entries = (
        config.stage.data if isinstance(config, LoRARunConfig) else (*config.stage_data, *config.router_data)
    )
    known = {entry.dataset for entry in recipe_entries}
    own = tuple(entry for name in datasets if name not in known for entry in own_entries(name, root=root))

    def data(entries: Sequence[DataConfig], *, added: tuple[DataConfig, ...] = ()) -> tuple[DataConfig, ...]:
        kept = [entry for entry in entries if not datasets or entry.dataset in datasets]
        return tuple(entry.at_most(limit) for entry in (*kept, *added))

    def stage(given: StageConfig, *, added: tuple[DataConfig, ...] = (), needed: bool = True) -> StageConfig:
        found = data(given.data, added=added)
        if not found and needed:
            raise ConfigError(f"no data are left for {given.name}: {_offer(given.data)}")
        return replace(given, data=found, epochs=given.epochs if epochs is None else epochs)

    if isinstance(config, LoRARunConfig):
        replay = tuple(entry.at_most(limit) for entry in config.replay)
        return replace(config, stage=stage(config.stage, added=own), replay=replay)
    evaluation = tuple(name for name in config.evaluation if not datasets or name in datasets)
    return replace(
        config,
        alignment=stage(config.alignment, needed=whole),
        instruction_tuning=stage(config.instruction_tuning, added=own, needed=whole),
        router=None if config.router is None else _router(config.router, data=data),
        moe_tuning=stage(config.moe_tuning, added=own),
        evaluation=(*evaluation, *dict.fromkeys(entry.dataset for entry in own)),
    )


def _router(router: RouterConfig, *, data: Callable[..., tuple[DataConfig, ...]]) -> RouterConfig:
    found = replace(router, data=data(router.data), held_out=data(router.held_out))
    if not found.data or not found.held_out:
        raise ConfigError(f"no images are left for the router: {_offer((*router.data, *router.held_out))}")
    return found


def own_entries(name: str, *, root: Path) -> list[DataConfig]:
    """Return the entries that read a dataset's questions and its labels. Raises DataError when it has neither."""
    kinds = {sample.kind for sample in read_dataset(root / name, split="train").samples}
    entries = [DataConfig(dataset=name, source=source) for source in _SOURCES if source in kinds]
    if not entries:
        raise DataError(f"{name} has no questions and no labels in its train split")
    return entries


def _offer(entries: Sequence[DataConfig]) -> str:
    return f"add --dataset {' or '.join(dict.fromkeys(entry.dataset for entry in entries))}"
