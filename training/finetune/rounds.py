"""Train in rounds of steps, measure each on the val split, and keep the best round's weights."""

import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn
from tqdm import tqdm
from transformers import TrainerCallback

from medmoe.model.medmoe import MedMoE
from medmoe.training.atomic_file import write_atomically
from medmoe.training.config import StageConfig
from medmoe.training.data.batches.collator import IGNORE_INDEX, Collator
from medmoe.training.data.sample import Sample
from medmoe.training.finetune.measurement import Quality
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.optimization.step_checkpoints import StepCheckpoints, TrainingError
from medmoe.training.optimization.train_stage import train_stage
from medmoe.training.stage_transition import set_trainable

_STATE, _BEST = "rounds.json", "best.safetensors"
_MOST_ROUNDS = 12
_LEAST_SAMPLES = 160
"""Training samples of a round: a few steps change little, and a look at the val split costs time."""
_PATIENCE = 4
"""Rounds without a better one after which training ends."""
_WARMUP = 0.1
PACK = 8
"""Questions on one image that are trained together at most."""
_LOGGED = RuntimeConfig().log_every
"""A round ends with a line of the log, whose mean loss a continued run computes anew."""
EMBEDDINGS = r"language_model\.(model\.embed_tokens|lm_head)\."
"""Tokens that were in no training text have nearly the same embedding. While it is frozen, each of them makes a label
that it spells unlikely, whatever the image shows."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """Hold the quality on val after each round; round 0 is the model before training."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    finished: bool = False

    @property
    def best(self) -> int:
        """Return the round of lowest loss among those that classify no fewer right than before the training."""
        allowed = [number for number, share in enumerate(self.accuracies) if share >= self.accuracies[0]]
        return min(allowed, key=self.losses.__getitem__)

    def record(self, number: int, found: Quality, *, epoch: float) -> None:
        """Set the quality after round `number`; later rounds of a run that was killed are forgotten."""
        for column, value in ((self.losses, found.loss), (self.accuracies, found.accuracy), (self.epochs, epoch)):
            column[number:] = [value]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """Configure a training of at most `epochs` epochs with early stopping."""

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
        """Train `model` in place and leave the best round's weights in it, so that it never ends worse on val.

        A run that was killed continues after its last round; where files of it are gone, it begins anew. Raises
        what `train_stage` raises.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        trained = set_trainable(model, self.trainable)
        _train_answer_tokens_alone(model, train, collator=collator)
        start = copied(model, trained)
        progress = self._restored()
        if not progress.losses:
            StepCheckpoints(self.directory).clear()
            progress.record(0, self.measure(model), epoch=0.0)
            self.save(progress)
        if not progress.finished:
            train_stage(
                model,
                self._stage(),
                samples=list(train),
                collator=collator,
                directory=self.directory,
                seed=self.seed,
                # The callback says when.
                runtime=RuntimeConfig(checkpoint_every=0),
                objective=self.loss,
                callbacks=[_Validation(self, model, trained=trained, progress=progress)],
            )
            progress.finished = True
            self.save(progress)
            StepCheckpoints(self.directory).clear()
        _fill(model, safetensors.torch.load_file(self.directory / _BEST) if progress.best else start)
        if not progress.best:
            tqdm.write("no round was better on val: the weights stay as they were", file=sys.stderr)
        return progress

    def save(self, progress: Progress, tensors: dict[str, torch.Tensor] | None = None) -> None:
        """Write the progress, and before it the weights of a new best round."""
        if tensors is not None:
            staging = self.directory / f".{_BEST}"
            try:
                safetensors.torch.save_file(tensors, staging)
            except SafetensorError as error:
                raise TrainingError(
                    f"{staging} cannot be written: {error}; make room and run the command again"
                ) from error
            staging.replace(self.directory / _BEST)
        write_atomically(self.directory / _STATE, json.dumps(asdict(progress)))

    def _stage(self) -> StageConfig:
        return StageConfig(
            name="finetuning",
            data=(),
            trainable=self.trainable,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            warmup_ratio=_WARMUP,
            batch_size=self.batch_size,
            pack=PACK,
            weight_decay=self.weight_decay,
        )

    def _restored(self) -> Progress:
        path = self.directory / _STATE
        if not path.exists():
            return Progress()
        progress = Progress(**json.loads(path.read_text()))
        if progress.best and not (self.directory / _BEST).exists():
            return Progress()
        tqdm.write(f"continued after epoch {progress.epochs[-1]:.1f}", file=sys.stderr)
        return progress


class _Validation(TrainerCallback):
    """Measure the model after each round, keep the best weights, and end a training that no longer helps."""

    def __init__(self, rounds: Rounds, model: MedMoE, *, trained: Sequence[str], progress: Progress) -> None:
        self._rounds = rounds
        self._model = model
        self._trained = trained
        self._progress = progress
        self._begun = (time.perf_counter(), 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._begun = (time.perf_counter(), state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, last = state.global_step, state.max_steps
        every = steps_of_round(last, batch_size=self._rounds.batch_size)
        if step % every and step < last:
            return
        progress, number = self._progress, math.ceil(step / every)
        self._model.eval()
        progress.record(number, self._rounds.measure(self._model), epoch=self._rounds.epochs * step / last)
        self._model.train()
        self._rounds.save(progress, copied(self._model, self._trained) if progress.best == number else None)
        started, first = self._begun
        left = (time.perf_counter() - started) / max(step - first, 1) * (last - step)
        tqdm.write(
            f"epoch {progress.epochs[-1]:.1f} of {self._rounds.epochs}: loss on val {progress.losses[-1]:z.3f} "
            f"(before: {progress.losses[0]:.3f}, best: {progress.losses[progress.best]:z.3f}); "
            f"at most {left / 60:.1f} minutes left",
            file=sys.stderr,
        )
        control.should_training_stop |= number - progress.best >= _PATIENCE
        if step < last and not control.should_training_stop:
            control.should_save = True


def steps_of_round(steps: int, *, batch_size: int) -> int:
    """Return how many of a training's steps pass between two looks at the val split."""
    return _LOGGED * math.ceil(max(steps / _MOST_ROUNDS, _LEAST_SAMPLES / batch_size) / _LOGGED)


def copied(model: MedMoE, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return copies of the named parameters on the CPU."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name].detach().cpu().clone().contiguous() for name in names}


@torch.no_grad()
def _fill(model: MedMoE, tensors: Mapping[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameters[name].copy_(tensor)


def _train_answer_tokens_alone(model: MedMoE, samples: Iterable[Sample], *, collator: Collator) -> None:
    """Keep the embeddings of the tokens that are in no answer of `samples`, where embeddings are trained."""
    ids = sorted({id_ for sample in samples for id_ in collator.encode(sample)[1]} - {IGNORE_INDEX})
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and re.match(EMBEDDINGS, name):
            kept = torch.zeros(len(parameter), *[1] * (parameter.dim() - 1))
            kept[ids] = 1
            parameter.register_hook(lambda gradient, kept=kept: gradient * kept.to(gradient))
