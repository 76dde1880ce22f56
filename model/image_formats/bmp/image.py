"""Decode the pixels of a BMP."""

import numpy as np
from PIL import Image

from medmoe.model.errors import DamagedImageError, ImageFormatError
from medmoe.model.image_formats.bmp.header import BmpHeader, read_header
from medmoe.model.image_formats.bmp.runs import unpacked
from medmoe.model.image_formats.raster_image import FileLimits, Step, excess_error

_LEVELS = np.arange(256, dtype=np.uint8)


def read_bmp(data: bytes, limits: FileLimits, steps: list[Step]) -> Image.Image:
    """Return the image, with its resolutions and its colour profile.

    Raises what `limits` raise, ImageFormatError, DamagedImageError, struct.error.
    """
    header = read_header(data)
    limits.check_size(header.width, header.height)
    if header.bits <= 8:
        image = _by_table(_indices(data, header), header.colours)
    elif header.bits == 24:
        image = Image.fromarray(np.ascontiguousarray(_rows(data, header, np.uint8, 3)[..., ::-1]))
    else:
        image = _by_fields(_rows(data, header, np.uint16 if header.bits == 16 else np.uint32, 1)[..., 0], header.masks)
    image.info["dpi"] = header.resolution
    if header.profile:
        image.info["icc_profile"] = header.profile
    elif header.has_other_colours:
        steps.append("icc_profile_ignored")
    return image


def _rows(data: bytes, header: BmpHeader, kind: type[np.unsignedinteger], each: int) -> np.ndarray:
    """Return uncompressed pixels [rows, columns, `each`], from the top."""
    stored = _stored(data, header)
    wide = header.width * each * np.dtype(kind).itemsize
    return _upright(stored[:, :wide].view(np.dtype(kind).newbyteorder("<")), header).reshape(
        header.height, header.width, each
    )


def _stored(data: bytes, header: BmpHeader) -> np.ndarray:
    """Return the bytes of uncompressed rows as stored, padding included."""
    row = (header.width * header.bits + 31) // 32 * 4
    taken = row * header.height
    if header.held - taken >= row:
        raise excess_error()
    found = data[header.start : header.start + taken]
    padding = row - (header.width * header.bits + 7) // 8
    if len(found) < taken - padding:
        raise DamagedImageError("the image is damaged or truncated: rows of the BMP are missing")
    return np.frombuffer(found.ljust(taken, b"\0"), np.uint8).reshape(header.height, row)


def _upright(rows: np.ndarray, header: BmpHeader) -> np.ndarray:
    return rows if header.from_top else rows[::-1]


def _indices(data: bytes, header: BmpHeader) -> np.ndarray:
    """Return the index of each pixel [rows, columns], from the top."""
    if header.has_runs:
        pixels, is_whole = unpacked(data[header.start :], header.width, header.height, packed=header.bits == 4)
        if not is_whole and header.colours[:1] != (bytes(3),):
            raise ImageFormatError(
                "the BMP skips pixels, which some programs show in its first colour and others transparent; save the "
                "image as PNG"
            )
        return _upright(np.frombuffer(pixels, np.uint8).reshape(header.height, header.width), header)
    stored, bits = _stored(data, header), header.bits
    if bits < 8:
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        stored = ((stored[..., None] >> shifts) & (2**bits - 1)).reshape(header.height, -1)
    return _upright(stored[:, : header.width], header)


def _by_table(indices: np.ndarray, colours: tuple[bytes, ...]) -> Image.Image:
    if int(indices.max()) >= len(colours):
        raise DamagedImageError("the image is damaged: its pixels name colours that its colour table lacks")
    image = Image.fromarray(np.ascontiguousarray(indices))
    table = np.frombuffer(b"".join(colours), np.uint8).reshape(-1, 3)
    if len(table) == 256 and (table == _LEVELS[:, None]).all():
        return image
    image.putpalette(table[:, ::-1].tobytes())
    return image


def _by_fields(pixels: np.ndarray, masks: tuple[int, int, int, int]) -> Image.Image:
    *colours, alpha = masks
    channels = [_channel(pixels, mask) for mask in colours]
    # Some writers leave an alpha that they announce 0 everywhere.
    if alpha and (pixels & alpha).any():
        channels.append(_channel(pixels, alpha))
    return Image.fromarray(np.stack(channels, axis=-1))


def _channel(pixels: np.ndarray, mask: int) -> np.ndarray:
    """Return the bits of a mask, brought to 8 bits."""
    if not mask:
        return np.zeros(pixels.shape, np.uint8)
    bits, lowest = mask.bit_count(), (mask & -mask).bit_length() - 1
    values = (pixels & mask) >> lowest
    if bits >= 8:
        return np.asarray((values >> (bits - 8)).astype(np.uint8))
    levels = np.rint(_LEVELS[: 2**bits] * (255 / (2**bits - 1))).astype(np.uint8)
    return np.asarray(levels[values.astype(np.uint8)])
