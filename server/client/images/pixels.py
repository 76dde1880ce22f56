"""Encode arrays, Pillow images and files as PNG, without loss and without metadata."""

import io
from typing import Any, get_args

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from medmoe.client.errors import InvalidInput
from medmoe.model.colour_profile import is_srgb, to_srgb
from medmoe.model.errors import ImageError
from medmoe.model.image_formats.pixel_aspect import pixel_aspect
from medmoe.model.image_formats.raster import read_raster
from medmoe.model.image_formats.signature import RasterFormat

_NOISE_SIDE = 256
_WHITE_16 = 2**16 - 1
_WHITE_IS_ZERO = 0
_FEW_BITS = 2**6
"""Above the high bytes of colours that hold 14 bits or fewer, which the service scales."""
_INCH = 0.0254
_PER_METRE = 10**6
"""Pixels a metre, of which PNG stores whole numbers."""
_DAMAGED = "the image is damaged or cut off"
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
    """Encode a Pillow image as the service sees its file: upright, in sRGB, with its transparency and pixel aspect.

    Raises InvalidInput for a mode or values that PNG lacks.
    """
    if image.mode not in _MODES:
        raise InvalidInput(
            f"an image of mode {image.mode} cannot be stored as PNG; give its file, or an image of mode L, I;16 or RGB"
        )
    try:
        # Both are lost when the image is loaded: first how its samples lie, then the orientation of a TIFF.
        layouts = [str(tile[3]) for tile in getattr(image, "tile", ())]
        options = _aspect(image)
        _require_low_bytes(image, layouts)
        upright = ImageOps.exif_transpose(_black_is_zero(image))
        upright = _in_16_bits(upright) if upright.mode == "I" else _in_srgb(upright)
        kept: dict[str | tuple[int, int], Any] = {
            name: _on_8_bits(value, layouts) for name, value in upright.info.items() if name == "transparency"
        }
        bare = upright.copy()
        # Pillow would write comments, EXIF and profiles too.
        bare.info = kept
        return _png(bare, pnginfo=_colour_chunks(image), **options)
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidInput(_DAMAGED) from error


def png_of_file(data: bytes, kind: RasterFormat, *, frame: int) -> bytes:
    """Encode a frame of a file as the service shows it to the model: 8 bits, upright, sRGB, square pixels.

    Raises InvalidInput.
    """
    try:
        image = read_raster(data, kind, frame=frame, limits=_NoLimits()).image
    except ImageError as error:
        raise InvalidInput(str(error)) from error
    except Exception as error:
        # Pillow raises many kinds of exceptions for damaged files.
        raise InvalidInput(_DAMAGED) from error
    red, *others = image.split()
    is_grey = all(channel.tobytes() == red.tobytes() for channel in others)
    return _png(red if is_grey else image)


class _NoLimits:
    """The service has limits of its own."""

    max_frames = 2**31

    def check_size(self, width: int, height: int) -> None:
        """Pass."""

    def check_frames(self, frames: int) -> None:
        """Pass."""


def _aspect(image: Image.Image) -> dict[str, Any]:
    """Return the option that saves pixels which are not square; none for an image that was made from a file's."""
    # A JPEG of several images.
    format_ = "JPEG" if image.format == "MPO" else image.format
    kind = next((kind for kind in get_args(RasterFormat) if kind == format_), None)
    ratio = pixel_aspect(image, kind) if kind else None
    if ratio is None or ratio == 1:
        return {}
    return {"dpi": (ratio * _PER_METRE * _INCH, _PER_METRE * _INCH)}


def _require_low_bytes(image: Image.Image, layouts: list[str]) -> None:
    """Raise InvalidInput for a file of 16 bits of which the picture is in the low bytes, which Pillow drops.

    Only an image that was not loaded before tells how many bits its file has.
    """
    if image.mode not in ("RGB", "RGBA") or not any(";16" in layout for layout in layouts):
        return
    brightest = max(high for _, high in image.convert("RGB").getextrema())  # type: ignore[misc]
    if brightest < _FEW_BITS or any("LA;16" in layout for layout in layouts):
        raise InvalidInput("Pillow keeps only the high bytes of this file's 16 bits; give the file itself")


def _on_8_bits(transparent: object, layouts: list[str]) -> object:
    """Return a transparent shade of 2 or 4 bits on the scale of 8 bits, to which Pillow brings the pixels alone."""
    bits = next((bits for bits in (2, 4) if f"L;{bits}" in layouts), None)
    if bits is None or not isinstance(transparent, int):
        return transparent
    white = 2**bits - 1
    return (transparent & white) * 255 // white


def _colour_chunks(image: Image.Image) -> PngImagePlugin.PngInfo:
    """Return the gamma and the chromaticities of a PNG whose colours nothing else describes."""
    chunks, info = PngImagePlugin.PngInfo(), image.info
    if "icc_profile" in info or "srgb" in info:
        return chunks
    for name, chunk in (("gamma", b"gAMA"), ("chromaticity", b"cHRM")):
        if name in info:
            numbers = np.ravel(info[name])
            chunks.add(chunk, np.rint(numbers * 1e5).astype(">u4").tobytes())
    return chunks


def _black_is_zero(image: Image.Image) -> Image.Image:
    """Return a page of a TIFF, of which Pillow inverts those of 8 bits alone, with black as 0."""
    tags = getattr(image, "tag_v2", {})
    if image.mode != "I;16" or tags.get(ExifTags.Base.PhotometricInterpretation) != _WHITE_IS_ZERO:
        return image
    inverted = Image.fromarray(_WHITE_16 - np.asarray(image))
    inverted.info = image.info
    return inverted


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
    if not isinstance(profile, bytes) or image.mode == "1" or is_srgb(profile):
        return image
    return to_srgb(image, profile) or image


def noise_pngs(count: int, *, seed: int) -> tuple[bytes, ...]:
    """Return PNG files of grey noise, 256 pixels a side, which are the same for the same seed."""
    random = np.random.default_rng(seed)
    return tuple(
        # Noise does not compress, so trying would only take time.
        _png(Image.fromarray(random.integers(0, 255, (_NOISE_SIDE, _NOISE_SIDE), dtype=np.uint8)), compress_level=0)
        for _ in range(count)
    )


def _png(image: Image.Image, *, compress_level: int = 6, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=compress_level, **options)
    return file.getvalue()
