"""Cover parts of an image with a soft-edged blurred patch, one grid cell after the other."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

PATCH = 2.0
"""Side of a patch in cells: neighbouring patches overlap by half, so an object on a border is covered whole by one."""
_EDGE = 0.5
"""Width of a patch's soft edge in cells, half of it outside: a hard edge would be an object of its own."""
_BLUR = 0.65
"""Standard deviation of the blur in cells. The mean colour in its place is an object where an image is uneven."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Cells over the part of the model's image that is no padding."""

    content: tuple[int, int, int, int]
    """Left, top, right and bottom in pixels."""
    rows: int
    columns: int

    @classmethod
    def of(cls, content: tuple[int, int, int, int], longer: int) -> "Grid":
        """Return about square cells, `longer` along the longer side and none thinner than a pixel."""
        left, top, right, bottom = content
        wide, high = right - left, bottom - top
        along = min(longer, max(wide, high))
        across = max(1, round(along * min(wide, high) / max(wide, high)))
        rows, columns = (across, along) if wide >= high else (along, across)
        return cls(content=content, rows=rows, columns=columns)

    @property
    def cells(self) -> tuple[tuple[int, int], ...]:
        """Return row and column of each cell, row by row."""
        return tuple((row, column) for row in range(self.rows) for column in range(self.columns))


class Occluder:
    """Covers the cells of one image."""

    def __init__(self, image: Image.Image, grid: Grid) -> None:
        """`image` is RGB of the model's size."""
        self._grid = grid
        self._pixels = np.asarray(image, dtype=np.float64)
        left, _, right, _ = grid.content
        # Of the content alone: padding would darken its borders.
        blur = ImageFilter.GaussianBlur(_BLUR * (right - left) / grid.columns)
        self._blurred = np.asarray(image.crop(grid.content).filter(blur), dtype=np.float64)

    def cover(self, row: int, column: int) -> Image.Image:
        """Return the image with the patch around a cell blurred; padding stays."""
        left, top, right, bottom = self._grid.content
        down = _profile(bottom - top, self._grid.rows, row)
        across = _profile(right - left, self._grid.columns, column)
        weight = (down[:, None] * across[None, :])[..., None]
        covered = self._pixels.copy()
        covered[top:bottom, left:right] += weight * (self._blurred - covered[top:bottom, left:right])
        return Image.fromarray(np.rint(covered).astype(np.uint8))


def _profile(length: int, cells: int, index: int) -> np.ndarray:
    """Return the weight of the patch around a cell at each of `length` pixels: 1 inside, falling to 0 over its edge."""
    cell = length / cells
    centres = np.arange(length) + 0.5
    outside = np.abs(centres - (index + 0.5) * cell) / cell - PATCH / 2
    weight: np.ndarray = np.clip(0.5 - outside / _EDGE, 0, 1)
    return weight


def importance(drops: np.ndarray) -> np.ndarray:
    """Return for each cell the mean drop [rows, columns] of the patches over it, each by its share of the cell.

    A patch covers its own cell, and half of each beside it.
    """
    rows, columns = drops.shape
    padded, is_patch = np.pad(drops, 1), np.pad(np.ones_like(drops), 1)
    total, shares = np.zeros_like(drops), np.zeros_like(drops)
    for (down, across), share in np.ndenumerate(np.outer((0.5, 1, 0.5), (0.5, 1, 0.5))):
        patches = np.s_[down : down + rows, across : across + columns]
        total += share * padded[patches]
        shares += share * is_patch[patches]
    found: np.ndarray = total / shares
    return found
