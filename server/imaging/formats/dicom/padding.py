"""Find the pixels that hold no data (PS3.3 C.7.5.1.1.2)."""

import numpy as np
from PIL import Image, ImageFilter
from pydicom.dataset import Dataset

from medmoe.server.imaging.formats.dicom.attributes import number, words

_LOWEST_HOUNSFIELD = -1200
"""Lower than air with noise: a scanner's rim around the field of view."""
_GAP = 100
"""Hounsfield units between a rim and the values of a scan."""
_BLUR_SHARE = 1 / 64
"""Share of the values' range by which lossy coding changes a flat region."""
_BLUR_PIXELS = 8
"""Block size of JPEG: how far lossy coding spreads an edge."""


def declared_padding(
    stored: np.ndarray, dataset: Dataset, *, bits: int, signed: bool, lossy: bool, cut: bool
) -> np.ndarray | None:
    """Return a mask of the declared padding in `stored` [rows, columns], None where none is declared.

    `cut`: the values lost the highest bits of their cells, so padding that was written in all of these lost them too.
    After lossy coding the mask holds the blurred values around the padding value too.
    """
    limits = _float_limits(dataset) if stored.dtype.kind == "f" else _limits(dataset, bits, signed, cut)
    if limits is None:
        return None
    low, high = limits
    inside: np.ndarray = (stored >= low) & (stored <= high)
    return _with_blur(stored, inside) if lossy and inside.any() and not inside.all() else inside


def undeclared_padding(values: np.ndarray) -> np.ndarray:
    """Return a mask of values in Hounsfield units that no matter has, and that lie apart from all others."""
    outside = np.asarray(values < _LOWEST_HOUNSFIELD)
    if not outside.any() or outside.all() or values[outside].max() > values[~outside].min() - _GAP:
        return np.zeros(values.shape, bool)
    return outside


def _limits(dataset: Dataset, bits: int, signed: bool, cut: bool) -> tuple[int, int] | None:
    found = [words(dataset, keyword, signed=signed)[:1] for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if not found[0]:
        return None
    ends = [_stored(value, bits=bits, signed=signed, cut=cut) for pair in found for value in pair]
    return min(ends), max(ends)


def _stored(value: int, *, bits: int, signed: bool, cut: bool) -> int:
    """Return the value as pixels of `bits` bits hold it: without the bits that they lost, or with their sign."""
    if bits >= 16:
        return value
    if cut:
        value &= 2**bits - 1
    return value - 2**bits if signed and 2 ** (bits - 1) <= value < 2**bits else value


def _float_limits(dataset: Dataset) -> tuple[float, float] | None:
    for prefix in ("Float", "DoubleFloat"):
        value = number(dataset, f"{prefix}PixelPaddingValue")
        if value is not None:
            limit = number(dataset, f"{prefix}PixelPaddingRangeLimit")
            ends = (value, value if limit is None else limit)
            # Pixels may have been rounded to fewer bits than the attribute.
            margin = max(abs(end) for end in ends) * 1e-6
            return min(ends) - margin, max(ends) + margin
    return None


def _with_blur(stored: np.ndarray, inside: np.ndarray) -> np.ndarray:
    values = stored.astype(np.float32)
    padding = values[inside]
    margin = float(np.ptp(values)) * _BLUR_SHARE
    inside = (values >= padding.min() - margin) & (values <= padding.max() + margin)
    near = np.asarray(Image.fromarray(inside.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(_BLUR_PIXELS))) > 0
    clear = values[~near]
    if not clear.size:
        return inside
    # Ringing at the rim: beyond every value that lies well inside the data, towards the padding.
    beyond = values < clear.min() if padding.max() < clear.min() else values > clear.max()
    return np.asarray(inside | (near & beyond))
