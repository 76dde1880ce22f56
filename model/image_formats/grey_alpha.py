"""Bring grey of more than 8 bits with alpha to 8 bits."""

import numpy as np
from PIL import Image


def stretched(grey: np.ndarray, alpha: np.ndarray, *, white: float) -> Image.Image:
    """Return LA of the shades between the least and the greatest value that is seen; `alpha` has 8 bits.

    Where all values are equal, their shade is a share of `white`.
    """
    seen = grey[alpha > 0] if alpha.any() else grey
    low, high = float(seen.min()), float(seen.max())
    if low == high:
        shades = np.full(grey.shape, np.clip(low / white * 255, 0, 255), np.uint8)
    else:
        shades = np.rint((np.clip(grey, low, high) - low) * (255 / (high - low))).astype(np.uint8)
    return Image.fromarray(np.stack([shades, alpha], axis=-1))
