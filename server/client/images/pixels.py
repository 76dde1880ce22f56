"""Arrays and Pillow pictures as PNG: lossless, and without anything but their pixels.

Imported only for those, because numpy and Pillow are the caller's then.
"""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from medmoe.client.errors import InvalidInput

_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})
"""What a PNG can hold."""


def png_of_array(pixels: np.ndarray) -> bytes:
    """Rows x columns as grey of 8 or 16 bit; with a third axis of 3 or 4 as RGB or RGBA of 8 bit.

    Raises InvalidInput for anything else: which numbers become black and white is not for this program to guess.
    """
    # By kind and size, because a dtype of the other byte order is another dtype.
    grey = pixels.ndim == 2 and pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2
    colour = pixels.ndim == 3 and pixels.shape[2] in (3, 4) and pixels.dtype == np.uint8
    if not (grey or colour) or 0 in pixels.shape:
        raise InvalidInput(
            f"an array of shape {pixels.shape} and {pixels.dtype} is no picture: uint8 or uint16 as rows x columns, or "
            "uint8 as rows x columns x 3 (or 4)"
        )
    native = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    return _png(Image.fromarray(native))


def png_of_image(image: Image.Image) -> bytes:
    """Turned as its camera was held, which a PNG would not say. Raises InvalidInput for a mode that PNG has not."""
    if image.mode not in _MODES:
        raise InvalidInput(f"a picture of mode {image.mode} is not sent as it is; convert it to RGB or to L")
    try:
        upright = ImageOps.exif_transpose(image)
        kept: dict[str | tuple[int, int], Any] = {
            name: value for name, value in upright.info.items() if name == "transparency"
        }
        bare = upright.copy()
        # Comments, EXIF and profiles would otherwise be written too.
        bare.info = kept
        return _png(bare)
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidInput("the picture cannot be read to its end") from error


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
