"""Find images that are nearly the same."""

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 16
_DISTANCE = 4.0
"""Root mean square of the difference of two thumbnails, in levels of 255, below which images count as one."""
_ROWS = 1024

Thumbnail = npt.NDArray[np.float32]


def thumbnail(image: Image.Image) -> Thumbnail:
    """Return an RGB image as float32 [768], levels of 0 to 255."""
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()


class DisjointSets:
    """Union-find over hashable items; an item that was never joined is a set of its own."""

    def __init__(self) -> None:
        self._parents: dict[Hashable, Hashable] = {}

    def root(self, item: Hashable) -> Hashable:
        while (parent := self._parents.get(item, item)) != item:
            self._parents[item] = self._parents.get(parent, parent)
            item = parent
        return item

    def join(self, one: Hashable, other: Hashable) -> None:
        self._parents[self.root(other)] = self.root(one)


def near_duplicates(thumbnails: Mapping[Path, Thumbnail]) -> Iterator[tuple[Path, Path]]:
    """Yield every pair of images that are nearly the same, the earlier image first.

    Compares every pair: some seconds for ten thousand images.
    """
    images = list(thumbnails)
    if not images:
        return
    rows = np.stack([thumbnails[image] for image in images])
    squares = np.square(rows).sum(axis=1)
    limit = _DISTANCE**2 * rows.shape[1]
    for start in range(0, len(images), _ROWS):
        part = slice(start, start + _ROWS)
        distances = squares[part, None] + squares[None] - 2 * rows[part] @ rows.T
        for one, other in np.argwhere(distances < limit).tolist():
            if start + one < other:
                yield images[start + one], images[other]
