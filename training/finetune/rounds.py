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
_STATE, _LAST, _BEST = "rounds.json", "last.safetensors", "best.safetensors"
_PATIENCE = 3
"""Rounds without a lower loss on val after which training ends."""
_LEAST_SAMPLES = 160
"""Training samples of a round: an epoch of a few images would end before it changed anything."""
_WARMUP = 0.2
"""Share of a round's steps in which the learning rate rises; Adam's first steps are as large as the rate allows."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """Hold the finished rounds. `losses` and `accuracies` on val begin with those before training."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    epochs: int = 0

    @property
    def best(self) -> int:
        """Return the round with the lowest loss whose accuracy has not fallen; 0 is the checkpoint as it was."""
        sound = [number for number, found in enumerate(self.accuracies) if found >= self.accuracies[0]]
        return min(sound, key=self.losses.__getitem__)

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
        """Train `model` in place until the loss on val no longer falls, and leave the best round's weights in it, or
        its first ones if no round was better.

        A run that was killed continues after its last step checkpoint. Raises what `train_stage` raises.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        parameters = dict(model.named_parameters())
        initial = {name: parameters[name].detach().clone() for name in set_trainable(model, self.trainable)}
        progress = self._restored(model)
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
                self._stage(number, of=count, epochs=epochs),
                samples=list(train),
                collator=collator,
                directory=directory,
                seed=self.seed + number,
                runtime=RuntimeConfig(checkpoint_every=50),
                objective=self.loss,
            )
            progress.add(self.measure(model))
            progress.epochs += epochs
            self._save(model, progress)
            StepCheckpoints(directory).clear()
            left = (time.perf_counter() - started) / (number - done) * (count - number)
            typer.echo(
                f"epoch {progress.epochs} of {self.epochs}: loss on val {progress.losses[-1]:.3f} "
                f"(before: {progress.losses[0]:.3f}, best: {progress.losses[progress.best]:.3f}); "
                f"at most {left / 60:.1f} minutes left",
                err=True,
            )
        if progress.best:
            _fill(model, safetensors.torch.load_file(self.directory / _BEST))
        else:
            _fill(model, initial)
            typer.echo("no round was better on val: the weights stay as they were", err=True)
        return progress

    def _stage(self, number: int, *, of: int, epochs: int) -> StageConfig:
        """Return round `number`; its learning rate lies on a cosine over the rounds, and rises and falls within it."""
        rate = self.learning_rate * (1 + math.cos(math.pi * (number - 1) / of)) / 2
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

    def _restored(self, model: MedMoE) -> Progress:
        path = self.directory / _STATE
        if not path.exists():
            return Progress()
        progress = Progress(**json.loads(path.read_text()))
        _fill(model, safetensors.torch.load_file(self.directory / _LAST))
        typer.echo(f"continued after epoch {progress.epochs}", err=True)
        return progress

    def _save(self, model: MedMoE, progress: Progress) -> None:
        tensors = {
            name: parameter.detach().cpu().contiguous()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        best = progress.best == len(progress.losses) - 1
        for name in [_LAST, _BEST] if best else [_LAST]:
            staging = self.directory / f".{name}"
            try:
                safetensors.torch.save_file(tensors, staging)
            except SafetensorError as error:
                raise TrainingError(
                    f"{staging} cannot be written: {error}; make room and run the command again"
                ) from error
            staging.replace(self.directory / name)
        write_atomically(self.directory / _STATE, json.dumps(asdict(progress)))


def epochs_of_round(samples: int, *, epochs: int) -> int:
    """Return how many epochs pass between two looks at the val split."""
    return min(epochs, max(1, math.ceil(_LEAST_SAMPLES / samples)))


@torch.no_grad()
def _fill(model: MedMoE, tensors: Mapping[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameters[name].copy_(tensor)
