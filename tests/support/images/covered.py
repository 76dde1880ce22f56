"""Cover a part of an image pixel by pixel, as a map of where an answer comes from is defined."""

import numpy as np
from PIL import Image, ImageFilter

_EDGE = 0.5


def covered(
    pixels: np.ndarray, box: tuple[int, int, int, int], *, shape: tuple[int, int], cell: tuple[int, int]
) -> np.ndarray:
    """Return RGB `pixels` [height, width, 3] with a blurred patch, two cells wide, around the middle of a cell.

    `box` (left, top, right, bottom) is divided into `shape` rows and columns. The patch's edge is half a cell wide.
    """
    left, top, right, bottom = box
    high, wide = (bottom - top) / shape[0], (right - left) / shape[1]
    blurred = np.asarray(Image.fromarray(pixels).crop(box).filter(ImageFilter.GaussianBlur(0.65 * wide)))
    result = pixels.astype(float)
    for y in range(top, bottom):
        for x in range(left, right):
            down = abs(y + 0.5 - top - (cell[0] + 0.5) * high) / high
            across = abs(x + 0.5 - left - (cell[1] + 0.5) * wide) / wide
            weight = min(max((1.25 - down) / _EDGE, 0), 1) * min(max((1.25 - across) / _EDGE, 0), 1)
            result[y, x] += weight * (blurred[y - top, x - left] - result[y, x])
    return np.rint(result).astype(np.uint8)
