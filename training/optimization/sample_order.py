"""Order the packs of a stage, so that a step's number alone says its batch.

To Trainer a stage is one long pass over this list in order. Nothing about the data's position has to be saved and
restored then, and an epoch's end, which need not fall between two batches, is the same for every number of processes.
"""

import math
import random
from dataclasses import replace

from torch.utils.data import Dataset

from medmoe.training.data.batches.packing import Pack

_STRETCH = 32
"""Batches."""


class EpochDataset(Dataset[Pack]):
    """Repeat all packs `epochs` times, each time in another order drawn by `seed`, in full batches.

    The last batch is filled up with the packs that would come next.
    """

    def __init__(
        self, packs: list[Pack], *, epochs: float, batch_size: int, seed: int, lengths: list[int] | None = None
    ) -> None:
        """`lengths`: tokens of each pack, to make batches of packs that are about equally long; None mixes them."""
        self._packs = packs
        self._seed = seed
        self.steps = math.ceil(epochs * len(packs) / batch_size)
        length = self.steps * batch_size
        self._order: list[int] = []
        while len(self._order) < length:
            epoch = len(self._order) // len(packs)
            self._order += random.Random(f"{seed}/{epoch}").sample(range(len(packs)), len(packs))
        del self._order[length:]
        if lengths is not None:
            self._order = _grouped(self._order, lengths, batch_size=batch_size, seed=seed)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Pack:
        """Return the pack, with one of its views: drawn by its place, so that resuming draws no other."""
        pack = self._packs[self._order[index]]
        views = _views(pack)
        view = random.Random(f"{self._seed}/view/{index}").randrange(views) if views > 1 else 0
        return tuple(replace(sample, view=view) for sample in pack) if view else pack


def _grouped(order: list[int], lengths: list[int], *, batch_size: int, seed: int) -> list[int]:
    """Sort packs by length within stretches of many batches; the batches of a stretch are in any order.

    A pack moves no further than its stretch: every epoch still sees nearly every pack once.
    """
    rng = random.Random(f"{seed}/lengths")
    grouped: list[int] = []
    for start in range(0, len(order), batch_size * _STRETCH):
        stretch = sorted(order[start : start + batch_size * _STRETCH], key=lengths.__getitem__)
        batches = [stretch[first : first + batch_size] for first in range(0, len(stretch), batch_size)]
        grouped += [index for batch in rng.sample(batches, len(batches)) for index in batch]
    return grouped


def _views(pack: Pack) -> int:
    """Return the number of views of a pack's image: the smallest of its samples', and 1 outside training."""
    return min(sample.views for sample in pack) if pack[0].split == "train" else 1
