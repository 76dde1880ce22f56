"""The latest few of anything, by key; apart because pictures, their tensors and suspects are remembered alike."""

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(OrderedDict[K, V]):
    """A dictionary that is filled by `keep`, which alone decides what goes first: looking changes nothing."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: K, value: V) -> None:
        """As the latest, also where it was there; beyond `most` the one that was kept longest ago goes."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > self._most:
            self.popitem(last=False)
