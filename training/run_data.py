"""Read the samples of a run's recipe, and bind the run to its data."""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

from medmoe.model.errors import ConfigError
from medmoe.training.atomic_file import write_atomically
from medmoe.training.config import DataConfig, RunConfig, StageConfig
from medmoe.training.data.leakage.manifest import build_manifest
from medmoe.training.data.mixture import Mixture, Teacher, read_mixture
from medmoe.training.data.sample import Sample

log = logging.getLogger(__name__)
MANIFEST_FILE = "manifest.json"


class RunData:
    """Hold the samples of every stage that a run does itself."""

    def __init__(self, config: RunConfig, *, stages: Sequence[StageConfig], root: Path, directory: Path) -> None:
        """`root` holds the datasets, `directory` is the run's."""
        self._config = config
        self._stages = stages
        self._root = root
        self._directory = directory
        of_stages = (entry for stage in stages for entry in stage.data)
        self._entries = tuple(dict.fromkeys([*of_stages, *config.router_data]))
        self._mixtures: dict[tuple[tuple[DataConfig, ...], int], Mixture] = {}
        self._teacher: Teacher | None = None

    def samples(self, entries: tuple[DataConfig, ...], *, seed: int | None = None) -> list[Sample]:
        """Return the samples of data entries; `seed` is the recipe's unless another is given."""
        return list(self._read(entries, seed=self._config.seed if seed is None else seed).samples)

    def stage_samples(self, stage: StageConfig) -> list[Sample]:
        """Return what all seeds of a stage draw."""
        seeds = stage.seeds_from(self._config.seed)
        return [sample for seed in seeds for sample in self.samples(stage.data, seed=seed)]

    @cached_property
    def everything(self) -> list[Sample]:
        """Return all samples that the run reads, with their true labels, and of further seeds those of other images."""
        samples = self.samples(self._entries)
        seen = {(sample.image, sample.views) for sample in samples}
        of_seeds = chain.from_iterable(self.stage_samples(stage) for stage in self._stages if stage.seeds > 1)
        return samples + [sample for sample in of_seeds if (sample.image, sample.views) not in seen]

    def distil(self, teacher: Teacher) -> None:
        """Let the teacher draw the labels of entries with `distilled` from now on."""
        self._mixtures = {
            (entries, seed): mixture
            for (entries, seed), mixture in self._mixtures.items()
            if not any(entry.distilled for entry in entries)
        }
        self._teacher = teacher

    def claim(self) -> None:
        """Bind the run to its data: a continued run must find the images and samples it began with.

        Raises ConfigError when it does not. What is held out and also trained on is named in the log.
        """
        left_out = self._read(self._entries, seed=self._config.seed).left_out
        claim_data(self._directory, self.everything, left_out=left_out)

    def _read(self, entries: tuple[DataConfig, ...], *, seed: int) -> Mixture:
        if (entries, seed) not in self._mixtures:
            self._mixtures[entries, seed] = read_mixture(
                entries,
                root=self._root,
                domains=self._config.domains,
                seed=seed,
                image_directory=self._directory / "images",
                teacher=self._teacher,
            )
        return self._mixtures[entries, seed]


def claim_data(directory: Path, samples: Sequence[Sample], *, left_out: Mapping[str, Mapping[str, int]]) -> None:
    """Write the manifest of a run's samples to `directory`, or compare it with the one that is there.

    Nothing is written while an image cannot be read, at which the run ends. Raises ConfigError when they differ.
    """
    path = directory / MANIFEST_FILE
    begun = path.exists()
    # Decoding every image finds leaks under other names, and what cannot be read; once is enough.
    manifest = build_manifest(samples, pixels=not begun, left_out=left_out)
    if not begun:
        for leak in manifest.leaks:
            log.warning("held out, and in train too: %s", leak)
        if not manifest.unreadable:
            write_atomically(path, manifest.to_json())
        return
    before, now = (json.loads(text)["splits"] for text in (path.read_text(), manifest.to_json()))
    # A manifest of an earlier version does not hold every digest.
    if any(before[split] != {name: now[split].get(name) for name in before[split]} for split in before):
        raise ConfigError(f"the data have changed since {directory} was begun; choose another --output")
