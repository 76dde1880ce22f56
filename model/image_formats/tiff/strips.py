"""Tell whether the strips or tiles of a TIFF hold more than the size in its directory takes."""

import zlib

from medmoe.model.errors import DamagedImageError
from medmoe.model.image_formats.jpeg import coded_rows
from medmoe.model.image_formats.no_data import inflated_size
from medmoe.model.image_formats.tiff.directory import TiffDirectory

_DEFLATE, _LZW, _PACKBITS = (8, 32946), 5, 32773
_JPEG, _SUBSAMPLED = 7, 6
_BLOCKS = 16
"""Rows of the largest JPEG blocks."""
_LARGEST_LZW = 2**21
"""Bytes of LZW data that are counted: 0.6 seconds."""
_CLEAR, _END = 256, 257
_SHORTEST, _LONGEST = 9, 12
"""Bits of an LZW code."""
_LENGTHS = (1,) * 256 + (0, 0)
"""Bytes that each LZW code stands for, after a clear code."""


def has_excess(data: bytes, page: TiffDirectory) -> bool:
    """Return whether a page has more strips or tiles than its size takes, or a strip more rows.

    Rows are counted in strips without compression, with Deflate, LZW or PackBits. Raises DamagedImageError where some
    are missing.
    """
    offsets, counts = page.parts
    planes = page.samples if page.separate_planes else 1
    tile, (width, height) = page.tile, page.size
    if tile is not None:
        return bool(all(tile)) and len(offsets) > planes * -(-width // tile[0]) * -(-height // tile[1])
    strip = max(page.rows_per_strip, 1)
    strips = -(-height // strip)
    if len(offsets) != len(counts) or len(offsets) != planes * strips:
        return len(offsets) > planes * strips
    if page.compression == _JPEG:
        # Some writers fill up the last rows of blocks.
        return strips == 1 and coded_rows(data[offsets[0] : offsets[0] + counts[0]]) - height >= _BLOCKS
    if page.photometric == _SUBSAMPLED or not page.bits:
        return False
    row = (width * page.bits * (page.samples // planes) + 7) // 8
    last = height - strip * (strips - 1)
    held = _held_bytes(data, page, strips - 1, most=2 * strip * row)
    if page.compression == 1 and strips > 1 and 0 < held < last * row:
        raise DamagedImageError("the image is damaged or truncated: the last strip of the TIFF lacks rows")
    # Some writers fill up the last strip with rows.
    filled = strips > 1 and held == strip * row
    if held >= (last + 1) * row and not filled and not _is_padding(data, page, strips - 1, last * row):
        return True
    if strips == 1 or _held_bytes(data, page, 0, most=2 * strip * row) < (strip + 1) * row:
        return False
    return not _is_padding(data, page, 0, strip * row)


def _is_padding(data: bytes, page: TiffDirectory, strip: int, start: int) -> bool:
    """Return whether zeros alone follow the first `start` bytes of an uncompressed strip."""
    offset, count = (values[strip] for values in page.parts)
    return page.compression == 1 and not data[offset + start : offset + count].strip(b"\0")


def _held_bytes(data: bytes, page: TiffDirectory, strip: int, *, most: int) -> int:
    """Return how many bytes of samples a strip holds, at most `most`; 0 where that is not known."""
    offset, count = (values[strip] for values in page.parts)
    stored = data[offset : offset + count]
    if page.compression == 1:
        # A count that is wrong tells nothing.
        return len(stored) if len(stored) == count else 0
    if page.compression == _PACKBITS:
        return packed_size(stored, most=most)
    if page.compression == _LZW and page.fill_order == 1 and len(stored) <= _LARGEST_LZW:
        return lzw_size(stored, most=most)
    if page.compression not in _DEFLATE:
        return 0
    try:
        return inflated_size((stored,), most=most)
    except zlib.error:
        return 0


def packed_size(coded: bytes, *, most: int) -> int:
    """Return how many bytes PackBits data hold, counted until they exceed `most` (TIFF 6.0, section 9)."""
    at = size = 0
    while at + 1 < len(coded) and size <= most:
        count = coded[at]
        if count < 128:
            size += min(count + 1, len(coded) - at - 1)
            at += count + 2
        elif count > 128:
            size += 257 - count
            at += 2
        else:
            at += 1
    return size


def lzw_size(coded: bytes, *, most: int) -> int:
    """Return how many bytes LZW data hold, counted until they exceed `most` (TIFF 6.0, section 13).

    0 for damaged data, and for those of old writers whose codes begin at the lowest bit.
    """
    if coded[:1] == b"\0":
        return 0
    lengths = list(_LENGTHS)
    width, previous, size, held, buffer = _SHORTEST, 0, 0, 0, 0
    for byte in coded:
        buffer = (buffer << 8 | byte) & 0xFFFFF
        held += 8
        if held < width:
            continue
        held -= width
        code = buffer >> held & ((1 << width) - 1)
        if code == _CLEAR:
            lengths, width, previous = list(_LENGTHS), _SHORTEST, 0
            continue
        if code == _END or size > most:
            break
        if code > len(lengths) or (code == len(lengths) and not previous):
            return 0
        if previous:
            lengths.append(previous + 1)
            if len(lengths) >= (1 << width) - 1 and width < _LONGEST:
                width += 1
        previous = lengths[code]
        size += previous
    return size
