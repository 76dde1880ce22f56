"""Draw samples of earlier training: some to train on again, others to measure what is forgotten."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medmoe.training.data.sample import Sample
from medmoe.training.finetune.data import read_own_data

_TRAINED, _MEASURED = 200, 100
"""Samples at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """Hold samples of different images."""

    train: Sequence[Sample] = ()
    measured: Sequence[Sample] = ()


def draw_replay(data: Path, *, seed: int) -> Replay:
    """Draw from `data`, in any format of own data; what it does not train on measures. Raises DatasetError."""
    drawn = random.Random(seed)
    samples = read_own_data(data).samples
    images = sorted({sample.image for sample in samples if sample.split != "train"})
    if not images:
        images = sorted({sample.image for sample in samples})
        images = drawn.sample(images, math.ceil(len(images) / 5))
    held_out = set(images)
    train = [replace(sample, split="train") for sample in samples if sample.image not in held_out]
    # The user's own samples may have the same ids.
    measured = [replace(s, split="test", id=f"replay {s.id}") for s in samples if s.image in held_out]
    return Replay(
        train=drawn.sample(train, min(_TRAINED, len(train))),
        measured=drawn.sample(measured, min(_MEASURED, len(measured))),
    )
