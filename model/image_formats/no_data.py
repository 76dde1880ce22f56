"""Find what stands for absent data: floating-point values without meaning, zeros of broken copies."""

import numpy as np

_LARGEST = 1e30
"""No measurement is larger; writers mark absent values with the largest number of their type."""


def no_data(values: np.ndarray) -> np.ndarray:
    """Return a mask of NaN and of finite values that are too large for a measurement; infinities are not in it."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isnan(values) | ((np.abs(values) > _LARGEST) & np.isfinite(values)))


def has_lost_bytes(coded: bytes, *, most: int) -> bool:
    """Return whether compressed data hold a run of over `most` zero bytes, as broken copies do in place of data."""
    return bytes(most + 1) in coded
