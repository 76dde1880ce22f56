"""Check the pixels of a PNG, and bring those of 16 bits a sample to 8 bits."""

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from medmoe.model.colour_profile import is_srgb
from medmoe.model.errors import DamagedImageError
from medmoe.model.image_formats.grey_alpha import stretched
from medmoe.model.image_formats.no_data import inflated
from medmoe.model.image_formats.png.chunks import split_chunks
from medmoe.model.image_formats.raster_image import Step, excess_error, keep_metadata

_FILTERS = 5
"""Filter types: ways in which the bytes of a row are predicted."""
_GREY_WITH_ALPHA = 4
_SAMPLES = {2: 3, _GREY_WITH_ALPHA: 2, 6: 4}
"""Samples of a pixel by colour type, where it is not one."""
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass, and the steps to the next."""
_FEW_BITS = 14


def check_pixels(data: bytes, decoded: Image.Image) -> None:
    """Raise DamagedImageError where a PNG holds less or more than its pixels; `decoded` is the file, decoded.

    Raises zlib.error for damaged data.
    """
    if excess := excess_bytes(data):
        raise excess_error() if excess > 0 else DamagedImageError("the image is damaged: rows of the PNG are missing")
    if decoded.mode == "P":
        colours = next((len(chunk.data) // 3 for chunk in split_chunks(data) if chunk.kind == b"PLTE"), 0)
        if decoded.getextrema()[1] >= colours:  # type: ignore[operator]
            raise DamagedImageError("the image is damaged: its pixels name colours that its palette lacks")


def excess_bytes(data: bytes) -> int:
    """Return how many bytes of pixels a PNG holds beyond those that the size in its header takes, negative for missing.

    0 where less than a row is too much. Raises DamagedImageError for an unknown filter, zlib.error for damaged data.
    """
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBB2xB", data, 16)
    bits = depth * _SAMPLES.get(colour, 1)
    passes = []
    for left, top, right, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            passes.append((rows, 1 + (columns * bits + 7) // 8))
    taken, row = sum(rows * length for rows, length in passes), (width * bits + 7) // 8
    coded = (chunk.data for chunk in split_chunks(data) if chunk.kind == b"IDAT")
    held = _checked_size(inflated(coded, most=taken + row), passes)
    return held - taken if held < taken or held - taken > row else 0


def _checked_size(pieces: Iterator[bytes], passes: list[tuple[int, int]]) -> int:
    """Return how many bytes the pieces have, the first byte of each row, its filter type, being checked."""
    held = 0
    left = [(rows * length, length) for rows, length in passes][::-1]
    at = 0
    for piece in pieces:
        held += len(piece)
        while piece and left:
            size, length = left[-1]
            part, piece = piece[: size - at], piece[size - at :]
            if max(part[-at % length :: length], default=0) >= _FILTERS:
                raise DamagedImageError("the image is damaged: rows of the PNG are predicted in an unknown way")
            at += len(part)
            if at == size:
                left.pop()
                at = 0
    return held


def eight_bits(data: bytes, high: Image.Image, steps: list[Step]) -> Image.Image:
    """Return an image of 8 bits; `high` is the file as Pillow decodes it, of 16 bits the high byte.

    Grey with alpha is stretched as other deep grey is; colours that hold 14 bits or fewer are scaled from those bits.
    """
    depth, colour = data[24:26]
    if depth != 16 or colour not in _SAMPLES:
        return high
    image = _grey(data) if colour == _GREY_WITH_ALPHA else _colours(data, high, steps)
    if image is high:
        return high
    keep_metadata(image, high)
    if colour == _GREY_WITH_ALPHA:
        steps.append("stretch")
        # Shades that were stretched are no colours of the profile.
        profile = image.info.pop("icc_profile", None)
        if profile and not is_srgb(profile):
            steps.append("icc_profile_ignored")
    return image


def _grey(data: bytes) -> Image.Image:
    # The four bytes of a pixel.
    samples = _decoded(data, "RGBA")
    grey = samples[..., 0].astype(np.uint16) << 8 | samples[..., 1]
    return stretched(grey.astype(np.float32), samples[..., 2], white=65535)


def _colours(data: bytes, high: Image.Image, steps: list[Step]) -> Image.Image:
    upper = np.asarray(high)[..., :3]
    key = high.info.get("transparency")
    is_keyed = isinstance(key, tuple)
    has_few_bits = 8 + int(upper.max()).bit_length() <= _FEW_BITS
    if not has_few_bits and not is_keyed:
        return high
    # Read with the other byte order, the file gives the low byte.
    lower = _decoded(data, f"{high.mode};16L")[..., :3]
    values = upper.astype(np.uint16) << 8 | lower
    shades = np.array(upper)
    if has_few_bits:
        steps.append("low_bits")
        held = max(int(values.max()).bit_length(), 1)
        shades = np.rint(values * np.float32(255 / (2**held - 1))).astype(np.uint8)
    image = Image.fromarray(shades)
    if is_keyed:
        # A colour key is compared with all 16 bits.
        image.putalpha(Image.fromarray(np.where((values == np.array(key)).all(axis=-1), 0, 255).astype(np.uint8)))
    elif high.mode == "RGBA":
        image.putalpha(high.getchannel("A"))
    return image


def _decoded(data: bytes, raw_mode: str) -> np.ndarray:
    """Return the samples of the file as Pillow reads them in another raw mode than its own."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as opened:
        opened.tile = [tile._replace(args=raw_mode) for tile in opened.tile]
        return np.asarray(opened)
