"""Train in rounds of whole epochs, measure each on the val split, and keep the best round's weights."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors.torch
import torch
import typer
from safetensors import SafetensorError
from torch import nn

from medmoe.model.medmoe import MedMoE
from medmoe.training.atomic_file import write_atomically
from medmoe.training.config import StageConfig
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.sample import Sample
from medmoe.training.finetune.measurement import Quality
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.optimization.step_checkpoints import StepCheckpoints, TrainingError
from medmoe.training.optimization.train_stage import train_stage
from medmoe.training.stages import set_trainable

log = logging.getLogger(__name__)
_STATE, _BEST = "rounds.json", "best.safetensors"
_PATIENCE = 3
"""Rounds without a lower loss on val after which training ends."""
_LEAST_SAMPLES = 160
"""Training samples of a round: an epoch of a few images would end before it changed anything."""
_BACKOFF = 1 / 3
"""Factor of the learning rate after each round that was undone."""
_WARMUP = 0.2
"""Share of a round's steps in which the learning rate rises; Adam's first steps are as large as the rate allows."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """Hold the finished rounds. `losses` and `accuracies` on val begin with those before training."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    epochs: int = 0

    @property
    def kept(self) -> list[int]:
        """The rounds with a lower loss than all before, and no lower accuracy than before training; 0 is the start."""
        kept = [0]
        for number in range(1, len(self.losses)):
            if self.losses[number] < self.losses[kept[-1]] and self.accuracies[number] >= self.accuracies[0]:
                kept.append(number)
        return kept

    @property
    def best(self) -> int:
        """The round whose weights are kept."""
        return self.kept[-1]

    @property
    def undone(self) -> int:
        """The number of rounds whose weights were not kept."""
        return len(self.losses) - len(self.kept)

    def add(self, found: Quality) -> None:
        """Append the quality after a round."""
        self.losses.append(found.loss)
        self.accuracies.append(found.accuracy)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """Configure a training of at most `epochs` epochs, in rounds, with early stopping."""

    directory: Path
    epochs: int
    learning_rate: float
    weight_decay: float
    trainable: tuple[str, ...]
    batch_size: int
    seed: int
    measure: Callable[[MedMoE], Quality]
    """Return a model's quality on the val split."""
    loss: Callable[[MedMoE], nn.Module] | None = None
    """Make the module whose loss `train_stage` minimises; None is the cross-entropy of the answers."""

    def __call__(self, model: MedMoE, train: Sequence[Sample], *, collator: Collator) -> Progress:
        """Train `model` in place until the loss on val no longer falls.

        Every round begins with the best weights so far, and a round that is not better is undone; so the model never
        ends worse on val than it began. A run that was killed continues after its last step checkpoint. Raises what
        `train_stage` raises.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        trained = set_trainable(model, self.trainable)
        best = _copied(model, trained)
        progress = self._restored()
        if progress.best:
            best = safetensors.torch.load_file(self.directory / _BEST)
            _fill(model, best)
        if not progress.losses:
            progress.add(self.measure(model))
        each = epochs_of_round(len(train), epochs=self.epochs)
        count = math.ceil(self.epochs / each)
        started, done = time.perf_counter(), len(progress.losses) - 1
        while (number := len(progress.losses)) <= count and number - progress.best <= _PATIENCE:
            epochs = min(each, self.epochs - progress.epochs)
            directory = self.directory / f"round-{number}"
            train_stage(
                model,
                self._stage(number, of=count, epochs=epochs, undone=progress.undone),
                samples=list(train),
                collator=collator,
                directory=directory,
                seed=self.seed + number,
                runtime=RuntimeConfig(checkpoint_every=50),
                objective=self.loss,
            )
            progress.add(self.measure(model))
            progress.epochs += epochs
            if progress.best == number:
                best = _copied(model, trained)
                self._save_best(best)
            else:
                _fill(model, best)
            write_atomically(self.directory / _STATE, json.dumps(asdict(progress)))
            StepCheckpoints(directory).clear()
            left = (time.perf_counter() - started) / (number - done) * (count - number)
            typer.echo(
                f"epoch {progress.epochs} of {self.epochs}: loss on val {progress.losses[-1]:.3f} "
                f"(before: {progress.losses[0]:.3f}, best: {progress.losses[progress.best]:.3f}); "
                f"at most {left / 60:.1f} minutes left",
                err=True,
            )
        if not progress.best:
            typer.echo("no round was better on val: the weights stay as they were", err=True)
        return progress

    def _stage(self, number: int, *, of: int, epochs: int, undone: int) -> StageConfig:
        """Return round `number`; its highest learning rate lies on a cosine, lowered for each round that was undone."""
        rate = self.learning_rate * _BACKOFF**undone * (1 + math.cos(math.pi * (number - 1) / of)) / 2
        return StageConfig(
            name=f"round {number}",
            data=(),
            trainable=self.trainable,
            epochs=epochs,
            learning_rate=rate,
            warmup_ratio=_WARMUP,
            batch_size=self.batch_size,
            pack=8,
            weight_decay=self.weight_decay,
        )

    def _restored(self) -> Progress:
        path = self.directory / _STATE
        if not path.exists():
            return Progress()
        progress = Progress(**json.loads(path.read_text()))
        typer.echo(f"continued after epoch {progress.epochs}", err=True)
        return progress

    def _save_best(self, tensors: dict[str, torch.Tensor]) -> None:
        staging = self.directory / f".{_BEST}"
        try:
            safetensors.torch.save_file(tensors, staging)
        except SafetensorError as error:
            raise TrainingError(f"{staging} cannot be written: {error}; make room and run the command again") from error
        staging.replace(self.directory / _BEST)


def epochs_of_round(samples: int, *, epochs: int) -> int:
    """Return how many epochs pass between two looks at the val split."""
    return min(epochs, max(1, math.ceil(_LEAST_SAMPLES / samples)))


def _copied(model: MedMoE, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return copies of the named parameters on the CPU."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name].detach().cpu().clone().contiguous() for name in names}


@torch.no_grad()
def _fill(model: MedMoE, tensors: Mapping[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameters[name].copy_(tensor)
