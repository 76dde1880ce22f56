"""Check the disk and estimate the duration of a finetuning run before it starts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from medmoe.model.medmoe import MedMoE
from medmoe.training.data.batches.collator import Collator, moved
from medmoe.training.data.batches.packing import pack_by_image
from medmoe.training.data.sample import Sample
from medmoe.training.disk_space import require_space
from medmoe.training.finetune.features import TowerFeatures
from medmoe.training.optimization.distributed import own_device
from medmoe.training.optimization.loss import AnswerLoss
from medmoe.training.precision import fast_autocast
from medmoe.training.stage_transition import set_trainable

_COPIES = 7
"""Copies of the trained weights in float32: the best round, two step checkpoints with Adam's two moments."""
_LOOKS = 16
"""How often the held-out samples are answered at most: after each round, before and after, and to calibrate."""
_ANSWER = 0.5
"""Cost of an answered sample in trained packs."""


def check_room(directory: Path, model: MedMoE, *, trainable: Sequence[str], features: int) -> None:
    """Raise ConfigError when the disk has no room for the features' bytes, the steps and the result."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    trained = sum(sizes[name] for name in set_trainable(model, trainable))
    require_space(directory, features + 4 * (_COPIES * trained + sum(sizes.values())))


def estimated_seconds(
    model: MedMoE,
    train: Sequence[Sample],
    *,
    held_out: Sequence[Sample],
    features: TowerFeatures,
    collator: Collator,
    epochs: int,
    batch_size: int,
    pack: int,
) -> float:
    """Time one image in each number format and one batch, and return the seconds of the whole run at most."""
    image = train[0].image
    packs = pack_by_image(train, most=pack, seed=0)
    largest = tuple(replace(sample, image=image, view=0) for sample in max(packs, key=len))
    features.train.fill([image])  # warms up
    image_seconds = [_timed(partial(cache.fill, [held_out[0].image])) for cache in (features.train, features.held_out)]
    device = own_device()

    def step() -> None:
        with fast_autocast(device):
            loss = AnswerLoss(model)(**moved(collator([largest] * batch_size), device))["loss"]
        loss.backward()
        model.zero_grad(set_to_none=True)

    step()
    pack_seconds = _timed(step) / batch_size
    views = sum({sample.image: sample.views for sample in train}.values())
    measured = len({sample.image for sample in held_out})
    return (
        views * image_seconds[0]
        + measured * sum(image_seconds)
        + (epochs * len(packs) + _LOOKS * _ANSWER * len(held_out)) * pack_seconds
    )


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
