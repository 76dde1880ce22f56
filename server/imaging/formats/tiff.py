"""Teach Pillow the sample formats of TIFF that it has decoders for and does not open, and read what it drops."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

_II, _MM = b"II", b"MM"
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_PHOTOMETRIC, _SAMPLE_FORMAT, _BITS = 262, 339, 258
WHITE_IS_ZERO = 0

# (byte order, photometric, sample format, fill order, bits, extra samples) -> mode, raw mode
for _order, _suffix in ((_II, ""), (_MM, "B")):
    for _white in (0, 1):
        for _format, _bits, _mode, _raw in (
            (_UNSIGNED, 16, "I;16" + _suffix, "I;16" + _suffix),
            (_SIGNED, 16, "I", f"I;16{_suffix}S"),
            (_UNSIGNED, 32, "I", "I;32" + _suffix),
            (_SIGNED, 32, "I", f"I;32{_suffix}S"),
            (_FLOAT, 32, "F", f"F;32{_suffix}F"),
            (_FLOAT, 64, "F", f"F;64{_suffix}F"),
        ):
            TiffImagePlugin.OPEN_INFO.setdefault((_order, _white, (_format,), 1, (_bits,), ()), (_mode, _raw))


@contextmanager
def open_page(data: bytes, page: int) -> Iterator[Image.Image]:
    """Open a TIFF at `page`, whatever size its other pages have. Raises EOFError where it has no such page."""
    alarm = Image.MAX_IMAGE_PIXELS
    # The page asked for is checked against the deployment's own limit before it is decoded.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as opened:
            if page:
                opened.seek(page)
            yield opened
    finally:
        Image.MAX_IMAGE_PIXELS = alarm


def is_white_zero(opened: Image.Image) -> bool:
    """Return whether 0 is white in grey values that Pillow leaves as they are stored."""
    return opened.mode in ("I;16", "I;16B", "I", "F") and _tag(opened, _PHOTOMETRIC) == WHITE_IS_ZERO


def unsigned_32(opened: Image.Image, image: Image.Image) -> Image.Image:
    """Return the values of 32-bit unsigned samples, which Pillow reads as signed."""
    if image.mode != "I" or _tag(opened, _BITS) != 32 or _tag(opened, _SAMPLE_FORMAT, _UNSIGNED) != _UNSIGNED:
        return image
    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(values.astype(np.float32)) if (values >= 2**31).any() else image


def _tag(opened: Image.Image, tag: int, default: int | None = None) -> int | None:
    value: Any = getattr(opened, "tag_v2", {}).get(tag, default)
    found: int | None = value[0] if isinstance(value, tuple) and value else value
    return found
