"""Tell whether nothing is to be seen in an image."""

import numpy as np
from PIL import Image

_SHARE = 0.999
"""Share of pixels of nearly one shade from which an image is uniform."""
_LEVELS = 4
"""Neighbouring levels of 255 that count as one shade."""


def is_uniform(image: Image.Image) -> bool:
    """Return whether nearly all pixels of an RGB image have one shade."""
    others = (1 - _SHARE) * image.width * image.height
    # Most images show more than that in an eighth of their rows.
    rows = image.crop((0, image.height * 7 // 16, image.width, image.height * 9 // 16))
    return all(_others(part) <= others for part in (rows, image))


def _others(image: Image.Image) -> int:
    """Return how many pixels differ from the most frequent shade, in the channel in which most do."""
    counts = np.asarray(image.histogram()).reshape(3, 256)
    near = sum(counts[:, level : 257 - _LEVELS + level] for level in range(_LEVELS))
    return int((counts.sum(axis=1) - np.max(near, axis=1)).max())
