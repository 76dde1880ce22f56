"""Check a stage's settings, samples and disk before the first step."""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from medmoe.model.errors import ConfigError
from medmoe.training.config import StageConfig
from medmoe.training.data.batches.collator import IGNORE_INDEX, Collator
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.disk_space import require_space, require_writable
from medmoe.training.optimization.muon import is_hidden_matrix
from medmoe.training.optimization.runtime import RuntimeConfig

_COPIES = 6
"""Copies of the trained weights in float32 in two step checkpoints: weights and Adam's two moments."""
_NUMBERS = ("epochs", "learning_rate", "warmup_ratio", "weight_decay", "max_grad_norm", "balance_loss")
_TOWER = "vision_tower."


def check_stage(
    stage: StageConfig,
    *,
    parameters: dict[str, int],
    samples: Sequence[Sample],
    collator: Collator,
    runtime: RuntimeConfig,
    processes: int,
) -> None:
    """Raise ConfigError for settings that do not fit the model (`parameters`: numbers of values by name) or the
    processes, DataError for samples that cannot be trained on.
    """
    runtime.device_batch(stage.batch_size, processes=processes)
    for field in _NUMBERS:
        if not 0 <= (number := getattr(stage, field)) < math.inf:
            raise ConfigError(f"{stage.name}: {field} of {number}; choose a number from 0")
    if stage.warmup_ratio > 1:
        raise ConfigError(f"{stage.name}: warmup_ratio of {stage.warmup_ratio}; choose a share of the steps, at most 1")
    if not 0 <= stage.dropout < 1:
        raise ConfigError(f"{stage.name}: dropout of {stage.dropout}; choose at least 0 and less than 1")
    if stage.epochs <= 0 or stage.batch_size < 1 or stage.pack < 1 or stage.seeds < 1:
        raise ConfigError(f"{stage.name}: epochs, batch_size, pack and seeds must be above 0")
    for pattern in stage.trainable:
        if not any(re.match(pattern, name) for name in parameters):
            raise ConfigError(f"{stage.name}: trainable pattern {pattern!r} matches no parameter")
        if any(re.match(pattern, name) for name in parameters if name.startswith(_TOWER)):
            raise ConfigError(
                f"{stage.name}: trainable pattern {pattern!r} matches the vision tower, which no stage trains: its "
                "features are computed once; name the projector and parts of the language model"
            )
    if stage.optimizer == "muon" and not any(
        is_hidden_matrix(name) and re.match(pattern, name) for name in parameters for pattern in stage.trainable
    ):
        raise ConfigError(f"{stage.name}: muon moves hidden matrices, and none is trainable")
    if not stage.trainable:
        raise ConfigError(f"{stage.name}: nothing is trainable")
    check_samples(samples, collator=collator, stage=stage.name)


def check_samples(samples: Iterable[Sample], *, collator: Collator, stage: str) -> None:
    """Raise DataError when there is no sample, or naming one that cannot be encoded or has nothing to learn."""
    seen: set[tuple[str, str]] = set()
    for sample in tqdm(samples, desc=f"checking samples of {stage}", unit="sample", delay=2, leave=False):
        key = (sample.dataset, sample.id)
        if key in seen:
            continue
        seen.add(key)
        _, labels = collator.encode(sample)
        if all(label == IGNORE_INDEX for label in labels):
            raise DataError(f"{stage}: sample {sample.id} of {sample.dataset} has no answer token to learn from")
    if not seen:
        raise DataError(f"{stage}: there are no samples to train on")


def check_disk(directory: Path, *, trained: int, runtime: RuntimeConfig) -> None:
    """Raise ConfigError when `directory` cannot be written, or has no room for the step checkpoints of `trained`
    values.
    """
    require_writable(directory)
    needed = _COPIES * 4 * trained if runtime.checkpoint_every else 0
    require_space(
        directory, needed, purpose="step checkpoints need", otherwise="train without them (checkpoint_every 0)"
    )
