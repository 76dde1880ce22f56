"""Find what stands for absent data: floating-point values without meaning, zeros of broken copies, missing bytes."""

import zlib
from collections.abc import Iterable, Iterator

import numpy as np

_LARGEST = 1e30
"""No measurement is larger; writers mark absent values with the largest number of their type."""
_LOST = 512
"""Zero bytes that no encoder writes in a row; in larger images, a byte for as many pixels."""
_PIECE = 2**14
"""Bytes that are inflated at once: few, so that they take little memory."""


def no_data(values: np.ndarray) -> np.ndarray:
    """Return a mask of NaN and of finite values that are too large for a measurement; infinities are not in it."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isnan(values) | ((np.abs(values) > _LARGEST) & np.isfinite(values)))


def has_lost_bytes(coded: bytes, *, pixels: int) -> bool:
    """Return whether data hold a run of zero bytes as broken copies do, and no encoder of WebP or JPEG 2000 does."""
    return bytes(max(_LOST, pixels // _LOST) + 1) in coded


def inflated(parts: Iterable[bytes], *, most: int) -> Iterator[bytes]:
    """Yield what a deflated stream holds in pieces, until they exceed `most` bytes. Raises zlib.error."""
    inflating, held = zlib.decompressobj(), 0
    for part in parts:
        for at in range(0, len(part), _PIECE):
            piece = inflating.decompress(part[at : at + _PIECE])
            yield piece
            held += len(piece)
            if held > most:
                return
