"""Survey the inputs of a run: count what each stage reads, and collect everything that is missing."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medmoe.model.checkpoint.io import expected_tensors
from medmoe.model.config import CONFIG_FILE, MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.training.config import DataConfig, RouterConfig, StageConfig
from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.detection import require_splits
from medmoe.training.data.errors import DataError
from medmoe.training.data.mixture import read_mixture
from medmoe.training.data.sample import Sample
from medmoe.training.disk_space import require_space
from medmoe.training.lora.config import AnyRunConfig, LoRARunConfig
from medmoe.training.optimization.preflight import check_disk
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.router.training import require_domains

_STAGE_COPIES = 5
"""Checkpoints of stages in float32, and the report's files; the step checkpoints come on top."""
_SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePlan:
    """Count the samples and steps of a stage of gradient descent."""

    name: str
    epochs: float
    samples: int
    steps: int
    """Steps, at most: questions on one image may share a sequence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Hold the counts of a run's inputs."""

    architecture: MedMoEConfig
    stages: tuple[StagePlan, ...]
    rows: tuple[tuple[str, ...], ...]
    """For each kind of data its dataset, source, split, and the numbers of samples used and of records left out."""
    views: int
    """Views of images that pass through the vision tower once."""
    feature_bytes: int

    def lines(self) -> Iterator[str]:
        """Yield the plan, line by line."""
        headers = ("dataset", "source", "split", "samples", "left out")
        widths = [max(map(len, column)) for column in zip(headers, *self.rows, strict=True)]
        for row in (headers, *self.rows):
            cells = [
                cell.ljust(width) if n < 3 else cell.rjust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            yield "  ".join(cells).rstrip()
        for stage in self.stages:
            yield f"{stage.name}: {stage.epochs:g} epochs of {stage.samples:,} samples, {stage.steps:,} steps at most"
        yield f"vision tower: {self.views:,} images and views of images, {self.feature_bytes / 1e9:.1f} GB of features"


def survey(
    config: AnyRunConfig, *, data: Path, directory: Path, base: Path | None, files: Sequence[Path | None] = ()
) -> Survey:
    """Read every dataset of the recipe and count.

    `files` are the other inputs of the run. Raises ConfigError naming everything that is missing, not the first alone.
    """
    missing = [f"{file} does not exist" for file in files if file is not None and not file.exists()]
    if base is not None and not (base / CONFIG_FILE).is_file():
        missing.append(f"{base} is no checkpoint: it has no {CONFIG_FILE}")
    if not data.is_dir():
        raise ConfigError("; ".join([*missing, f"--data {data} is no folder"]))
    domains = config.modality_labels if isinstance(config, LoRARunConfig) else config.domains
    if not domains and base is not None and (base / CONFIG_FILE).is_file():
        domains = MedMoEConfig.from_directory(base).expert_domains
    reader = _Reader(domains, seed=config.seed, data=data, directory=directory, missing=missing)
    plans = [reader.plan(stage) for stage in _stages(config, base=base)]
    if not isinstance(config, LoRARunConfig):
        for entry in config.router_data:
            reader.read(entry)
        if config.router is not None:
            reader.check_router(config.router)
        for name in dict.fromkeys(config.evaluation):
            reader.check_test_split(name)
    if missing:
        shown = list(dict.fromkeys(missing))
        more = f"; and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        raise ConfigError(f"{len(shown)} inputs are missing: {'; '.join(shown[:_SHOWN])}{more}")
    architecture = MedMoEConfig.from_directory(base) if isinstance(config, LoRARunConfig) and base else None
    if architecture is None:
        assert not isinstance(config, LoRARunConfig), "adapters have a base"
        architecture = config.architecture
    views = reader.views()
    vision = architecture.vision_config
    return Survey(
        architecture=architecture,
        stages=tuple(plans),
        rows=tuple(sorted(reader.rows)),
        views=views,
        feature_bytes=views * vision.num_patches * vision.hidden_size * 2,
    )


def check_room(found: Survey, *, output: Path, features: Path, runtime: RuntimeConfig) -> None:
    """Raise ConfigError if `output` cannot be written, or has no room for what the run writes."""
    trained = sum(tensor.numel() for tensor in expected_tensors(found.architecture).values())
    check_disk(output, trained=trained, runtime=runtime)
    check_disk(features, trained=0, runtime=runtime)
    needed = {output: _STAGE_COPIES * 4 * trained}
    needed[features] = needed.get(features, 0) + (0 if any(features.iterdir()) else found.feature_bytes)
    for folder, size in needed.items():
        require_space(folder, size)


def _stages(config: AnyRunConfig, *, base: Path | None) -> tuple[StageConfig, ...]:
    if isinstance(config, LoRARunConfig):
        return (replace(config.stage, data=(*config.stage.data, *config.replay)),)
    before = (config.alignment, config.instruction_tuning) if base is None else ()
    return (*before, config.moe_tuning)


class _Reader:
    """Read data entries once each, and note what is missing."""

    def __init__(self, domains: Sequence[str], *, seed: int, data: Path, directory: Path, missing: list[str]) -> None:
        self._data = data
        self._images = directory / "images"
        self._seed = seed
        self._domains = domains
        self._missing = missing
        self._found: dict[DataConfig, tuple[Sample, ...]] = {}
        self.rows: set[tuple[str, ...]] = set()

    def plan(self, stage: StageConfig) -> StagePlan:
        """Count a stage."""
        samples = sum(len(self.read(entry)) for entry in stage.data)
        epochs = stage.epochs * stage.seeds
        steps = math.ceil(epochs * samples / stage.batch_size)
        return StagePlan(name=stage.name, epochs=epochs, samples=samples, steps=steps)

    def read(self, entry: DataConfig) -> tuple[Sample, ...]:
        """Return an entry's samples; none where it cannot be read."""
        if entry not in self._found:
            try:
                found = read_mixture(
                    (entry,), root=self._data, domains=self._domains, seed=self._seed, image_directory=self._images
                )
            except DataError as error:
                self._missing.append(str(error).splitlines()[0])
                self._found[entry] = ()
            else:
                self._found[entry] = found.samples
                bad = sum(sum(reasons.values()) for reasons in found.left_out.values())
                self.rows.add((entry.dataset, entry.source, entry.split, f"{len(found.samples):,}", f"{bad:,}"))
        return self._found[entry]

    def check_router(self, router: RouterConfig) -> None:
        """Note domains that have no image to train the router on."""
        read = [self.read(entry) for entry in router.data]
        try:
            if all(read):  # else what could not be read is noted
                require_domains([sample for samples in read for sample in samples], domains=router.domains)
        except DataError as error:
            self._missing.append(str(error))

    def check_test_split(self, name: str) -> None:
        """Note a dataset that the result cannot be evaluated on."""
        try:
            require_splits(self._data / name)
            if not read_dataset(self._data / name, split="test", image_directory=self._images).samples:
                self._missing.append(f"{name} has no test split to evaluate on")
        except DataError as error:
            self._missing.append(str(error).splitlines()[0])

    def views(self) -> int:
        """Return how many views of images training may draw."""
        most: dict[Path, int] = {}
        for samples in self._found.values():
            for sample in samples:
                views = sample.views if sample.split == "train" else 1
                most[sample.image] = max(views, most.get(sample.image, 1))
        return sum(most.values())
