"""Decode TIFF samples that Pillow misreads: more than 8 bits, signed, floating point, BigTIFF in big endian.

libtiff, through Pillow, decompresses each plane as bytes; numpy gives the bytes their meaning.
"""

import numpy as np

from medmoe.model.errors import DamagedImageError, ImageFormatError
from medmoe.model.image_formats.tiff.directory import TiffDirectory
from medmoe.model.image_formats.tiff.libtiff import decoded, grey_tags

_BYTEWISE = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})
"""Compressions of bytes, whatever samples they hold: none, LZW, Deflate, PackBits, LZMA, Zstandard."""
_GREY, _COLOURS = (0, 1), 2
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_HORIZONTAL, _FLOATING = 2, 3
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]
"""Each byte with its bits in the other order."""


def is_deep(page: TiffDirectory) -> bool:
    """Return whether `read_samples` must decode the page instead of Pillow."""
    if page.compression not in _BYTEWISE or page.photometric not in (*_GREY, _COLOURS):
        return False
    if page.sample_format not in (_UNSIGNED, _UNDEFINED) or page.separate_planes or (page.big and page.big_endian):
        return True
    if page.photometric == _COLOURS:
        # A fourth sample that is not said to be alpha is none.
        return page.bits not in (0, 8) or (page.samples > 3 and page.extra_samples[:1] not in ((1,), (2,)))
    return page.samples > 1 or page.bits not in (0, 1, 2, 4, 8)


def read_samples(data: bytes, page: TiffDirectory) -> np.ndarray:
    """Return samples [rows, columns, samples] in the type and sign that the page says.

    Raises DamagedImageError, ImageFormatError, or anything that Pillow raises on damaged data.
    """
    width, height = page.size
    bits, samples = page.bits, page.samples
    if page.sample_format not in (_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED):
        raise ImageFormatError("TIFF samples of complex numbers are not read; save the magnitude")
    if not 1 <= bits <= 64 or not 1 <= samples <= 8:
        raise ImageFormatError("TIFF samples of different sizes, or of more than 64 bits, are not read")
    in_row = width * (1 if page.separate_planes else samples)
    planes = [
        _values(_bytes(data, page, plane), page, in_row=in_row)
        for plane in range(samples if page.separate_planes else 1)
    ]
    if page.separate_planes:
        return np.stack(planes, axis=-1)
    return planes[0].reshape(height, width, samples)


def _bytes(data: bytes, page: TiffDirectory, plane: int) -> np.ndarray:
    """Return the decompressed bytes of one plane, [rows, bytes], tiles put together."""
    width, height = page.size
    offsets, counts = page.parts
    planes = page.samples if page.separate_planes else 1
    each = len(offsets) // planes
    offsets, counts = (tuple(values[plane * each : (plane + 1) * each]) for values in (offsets, counts))
    if not each or len(counts) != each:
        raise DamagedImageError()
    bits = page.bits * (1 if page.separate_planes else page.samples)
    tile = page.tile
    # A whole number of tiles: the floating-point predictor spreads a value over all of a tile's row.
    wide = width if tile is None else -(-width // max(tile[0], 1)) * tile[0]
    row = (wide * bits + 7) // 8
    tags = grey_tags(row, height, bits=8, compression=page.compression)
    reversed_bits = page.fill_order == 2
    if reversed_bits and page.compression != 1:
        # libtiff brings the compressed bits in order.
        tags[266] = (2,)
    if tile is None:
        tags |= {273: offsets, 278: (page.rows_per_strip,), 279: counts}
    else:
        if tile[0] * bits % 8:
            raise ImageFormatError("TIFF tiles that end within a byte are not read; convert the page with tiffcp -s")
        tags |= {322: (tile[0] * bits // 8,), 323: (tile[1],), 324: offsets, 325: counts}
    found = decoded(data, tags)
    return _REVERSED[found] if reversed_bits and page.compression == 1 else found


def _values(stored: np.ndarray, page: TiffDirectory, *, in_row: int) -> np.ndarray:
    """Return the values in rows of bytes, [rows, `in_row`]."""
    bits = page.bits
    order = ">" if page.big_endian else "<"
    step = 1 if page.separate_planes else page.samples
    if bits not in (8, 16, 32, 64):
        if bits == 24 and not page.big_endian:
            stored = stored[:, : 3 * in_row].reshape(-1, in_row, 3)[..., ::-1].reshape(-1, 3 * in_row)
        packed = _packed(stored, bits, in_row)
        if page.sample_format != _SIGNED:
            return packed
        return packed.astype(np.int32) - (packed >> (bits - 1) << bits).astype(np.int32)
    kind = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f"}.get(page.sample_format, "u")
    predicted = _chunks(stored, page, bits // 8)
    if page.predictor == _FLOATING:
        floats: np.ndarray = np.concatenate([_floating(chunk, bits // 8, step) for chunk in predicted], axis=1)
        return floats[:, :in_row]
    if page.predictor == _HORIZONTAL:
        found: list[np.ndarray] = []
        for chunk in predicted:
            values: np.ndarray = np.ascontiguousarray(chunk).view(f"{order}u{bits // 8}").astype(f"u{bits // 8}")
            rows, length = values.shape
            summed = np.cumsum(values.reshape(rows, length // step, step), axis=1, dtype=values.dtype)
            found.append(summed.reshape(rows, length))
        joined: np.ndarray = np.concatenate(found, axis=1)[:, :in_row]
        return joined.view(f"{kind}{bits // 8}")
    native: np.ndarray = np.ascontiguousarray(stored).view(f"{order}{kind}{bits // 8}")
    return native[:, :in_row].astype(f"{kind}{bits // 8}")


def _chunks(stored: np.ndarray, page: TiffDirectory, size: int) -> list[np.ndarray]:
    """Return the columns over which a predictor runs: a tile's, or the whole row."""
    if page.tile is None:
        return [stored]
    wide = page.tile[0] * size * (1 if page.separate_planes else page.samples)
    return [stored[:, at : at + wide] for at in range(0, stored.shape[1], wide)]


def _floating(chunk: np.ndarray, size: int, step: int) -> np.ndarray:
    """Undo the floating-point predictor: differences of bytes, the most significant bytes of a row first."""
    rows, length = chunk.shape
    summed = np.cumsum(chunk.reshape(rows, length // step, step), axis=1, dtype=np.uint8).reshape(rows, length)
    ordered = np.ascontiguousarray(summed.reshape(rows, size, length // size).transpose(0, 2, 1))
    return ordered.reshape(rows, length).view(f">f{size}").astype(f"f{size}")


def _packed(stored: np.ndarray, bits: int, in_row: int) -> np.ndarray:
    """Return unsigned values of any number of bits, packed from the highest bit on."""
    if bits > 24:
        raise ImageFormatError("TIFF samples of 25 to 31 bits, or over 32, are not read")
    flags = np.unpackbits(stored, axis=1)[:, : in_row * bits].reshape(len(stored), in_row, bits)
    values: np.ndarray = np.zeros((len(stored), in_row), np.uint32)
    for bit in range(bits):
        values = values << 1 | flags[:, :, bit]
    return values
