"""Decode TIFF samples that Pillow misreads: more than 8 bits, signed, floating point, BigTIFF in big endian.

libtiff, through Pillow, decompresses each plane as bytes; numpy gives the bytes their meaning.
"""

import numpy as np
from PIL.ExifTags import Base as Tag

from medmoe.model.errors import DamagedImageError, ImageFormatError
from medmoe.model.image_formats.tiff.directory import TiffDirectory
from medmoe.model.image_formats.tiff.libtiff import REVERSED, decoded, grey_tags

_BYTEWISE = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})
"""Compressions of bytes, whatever samples they hold: none, LZW, Deflate, PackBits, LZMA, Zstandard."""
_GREY, _COLOURS = (0, 1), 2
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_HORIZONTAL, _FLOATING = 2, 3


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
    in_row = width * page.plane_samples
    planes = [_values(_bytes(data, page, plane), page, in_row=in_row) for plane in range(page.planes)]
    if page.separate_planes:
        return np.stack(planes, axis=-1)
    return planes[0].reshape(height, width, samples)


def _bytes(data: bytes, page: TiffDirectory, plane: int) -> np.ndarray:
    """Return the decompressed bytes of one plane, [rows, bytes], tiles put together."""
    width, height = page.size
    each = len(page.parts[0]) // page.planes
    offsets, counts = (values[plane * each : (plane + 1) * each] for values in page.parts)
    if not each or len(counts) != each:
        raise DamagedImageError()
    bits, tile = page.bits * page.plane_samples, page.tile
    # A whole number of tiles: the floating-point predictor spreads a value over all of a tile's row.
    wide = width if tile is None else -(-width // max(tile[0], 1)) * tile[0]
    tags = grey_tags((wide * bits + 7) // 8, height, bits=8, compression=page.compression)
    reversed_bits = page.fill_order == 2
    if reversed_bits and page.compression != 1:
        # libtiff brings the compressed bits in order.
        tags[Tag.FillOrder] = (2,)
    if tile is None:
        tags |= {Tag.StripOffsets: offsets, Tag.RowsPerStrip: (page.rows_per_strip,), Tag.StripByteCounts: counts}
    elif tile[0] * bits % 8:
        raise ImageFormatError("TIFF tiles that end within a byte are not read; convert the page with tiffcp -s")
    else:
        tags |= {Tag.TileWidth: (tile[0] * bits // 8,), Tag.TileLength: (tile[1],)}
        tags |= {Tag.TileOffsets: offsets, Tag.TileByteCounts: counts}
    found = decoded(data, tags)
    return REVERSED[found] if reversed_bits and page.compression == 1 else found


def _values(stored: np.ndarray, page: TiffDirectory, *, in_row: int) -> np.ndarray:
    """Return the values in rows of bytes, [rows, `in_row`]."""
    bits, step = page.bits, page.plane_samples
    order = ">" if page.big_endian else "<"
    if bits not in (8, 16, 32, 64):
        if bits == 24 and not page.big_endian:
            stored = stored[:, : 3 * in_row].reshape(-1, in_row, 3)[..., ::-1].reshape(-1, 3 * in_row)
        packed = _packed(stored, bits, in_row)
        if page.sample_format != _SIGNED:
            return packed
        return packed.astype(np.int32) - (packed >> (bits - 1) << bits).astype(np.int32)
    size = bits // 8
    kind = {_SIGNED: "i", _FLOAT: "f"}.get(page.sample_format, "u") + str(size)
    # A predictor runs over the columns of a tile, or over the whole row.
    wide = stored.shape[1] if page.tile is None else page.tile[0] * size * step
    chunks = (np.ascontiguousarray(stored[:, at : at + wide]) for at in range(0, stored.shape[1], wide))
    found: np.ndarray
    if page.predictor == _FLOATING:
        found = np.concatenate([_floating(chunk, size, step) for chunk in chunks], axis=1)
    elif page.predictor == _HORIZONTAL:
        words = (chunk.view(f"{order}u{size}").astype(f"u{size}") for chunk in chunks)
        found = np.concatenate([_summed(each, step) for each in words], axis=1).view(kind)
    else:
        found = np.ascontiguousarray(stored).view(f"{order}{kind}").astype(kind)
    return found[:, :in_row]


def _summed(differences: np.ndarray, step: int) -> np.ndarray:
    """Return the values of which each row holds differences, of samples `step` apart."""
    rows, length = differences.shape
    summed = np.cumsum(differences.reshape(rows, length // step, step), axis=1, dtype=differences.dtype)
    return summed.reshape(rows, length)


def _floating(chunk: np.ndarray, size: int, step: int) -> np.ndarray:
    """Undo the floating-point predictor: differences of bytes, the most significant bytes of a row first."""
    rows, length = chunk.shape
    ordered = np.ascontiguousarray(_summed(chunk, step).reshape(rows, size, length // size).transpose(0, 2, 1))
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
