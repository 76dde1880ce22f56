"""Tell whether nothing is to be seen in an image."""

import numpy as np
from PIL import Image

_SHARE = 0.999
"""Share of pixels of nearly one shade from which an image is uniform."""
_LEVELS = 4
"""Neighbouring levels of 255 that count as one shade."""


def is_uniform(image: Image.Image) -> bool:
    """Return whether nearly all pixels of an RGB image have one shade."""
    counts = np.asarray(image.histogram()).reshape(3, 256)
    windows = np.lib.stride_tricks.sliding_window_view(counts, _LEVELS, axis=1).sum(axis=-1)
    return bool((windows.max(axis=1) >= _SHARE * image.width * image.height).all())
