"""Encode arrays and Pillow images as PNG, without loss and without metadata."""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from medmoe.client.errors import InvalidInput

_NOISE_SIDE = 256
_WHITE_16 = 2**16 - 1
_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})
"""Pillow modes that PNG can store."""


def png_of_array(pixels: np.ndarray) -> bytes:
    """Encode grey [H, W] of uint8 or uint16, or RGB [H, W, 3] or RGBA [H, W, 4] of uint8.

    Raises InvalidInput for other shapes and types, whose black and white points are unknown.
    """
    # dtype equality would reject the other byte order.
    grey = pixels.ndim == 2 and pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2
    colour = pixels.ndim == 3 and pixels.shape[2] in (3, 4) and pixels.dtype == np.uint8
    if not (grey or colour) or 0 in pixels.shape:
        raise InvalidInput(
            f"an array of shape {pixels.shape} and {pixels.dtype} is no image: uint8 or uint16 as rows x columns, or "
            "uint8 as rows x columns x 3 (or 4)"
        )
    native = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    return _png(Image.fromarray(native))


def png_of_image(image: Image.Image) -> bytes:
    """Encode a Pillow image, rotated as its EXIF orientation says, its colours in sRGB as the service sees a file's.

    Raises InvalidInput for a mode or values that PNG lacks.
    """
    if image.mode not in _MODES:
        raise InvalidInput(f"an image of mode {image.mode} cannot be stored as PNG; convert it to RGB or to L")
    try:
        upright = ImageOps.exif_transpose(image)
        upright = _in_16_bits(upright) if upright.mode == "I" else _in_srgb(upright)
        kept: dict[str | tuple[int, int], Any] = {
            name: value for name, value in upright.info.items() if name == "transparency"
        }
        bare = upright.copy()
        # Pillow would write comments, EXIF and profiles too.
        bare.info = kept
        return _png(bare)
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidInput("the image is damaged or cut off") from error


def _in_16_bits(image: Image.Image) -> Image.Image:
    """Return an image of mode I as one of mode I;16. Raises InvalidInput for other values than those of 16 bits."""
    lowest, highest = image.getextrema()
    if not 0 <= lowest <= highest <= _WHITE_16:  # type: ignore[operator]
        raise InvalidInput(
            f"an image of mode I with values outside 0 to {_WHITE_16} cannot be stored as PNG; scale it to L or I;16"
        )
    return image.convert("I;16")


def _in_srgb(image: Image.Image) -> Image.Image:
    """Return the image converted by its ICC profile; unchanged without one that can be used."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or b"sRGB" in profile.replace(b"\0", b""):
        return image
    colours = image
    if image.mode == "P":
        colours = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if colours.mode not in ("L", "RGB", "RGBA"):
        return image
    # Grey is not interpolated between few points then.
    flags = ImageCms.Flags.NOOPTIMIZE if colours.mode == "L" else ImageCms.Flags.NONE
    mode = "RGB" if colours.mode == "L" else colours.mode
    try:
        source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(colours, source, target, outputMode=mode, flags=flags) or image
    except (ImageCms.PyCMSError, OSError):
        return image


def noise_pngs(count: int, *, seed: int) -> tuple[bytes, ...]:
    """Return PNG files of grey noise, 256 pixels a side, which are the same for the same seed."""
    random = np.random.default_rng(seed)
    return tuple(
        # Noise does not compress, so trying would only take time.
        _png(Image.fromarray(random.integers(0, 255, (_NOISE_SIDE, _NOISE_SIDE), dtype=np.uint8)), compress_level=0)
        for _ in range(count)
    )


def _png(image: Image.Image, *, compress_level: int = 6) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=compress_level)
    return file.getvalue()
