"""Tell whether the strips or tiles of a TIFF hold more than the size in its directory takes."""

import bisect

from PIL.ExifTags import Base as Tag

from medmoe.model.errors import DamagedImageError
from medmoe.model.image_formats.jpeg.file import JpegFile
from medmoe.model.image_formats.jpeg.segments import END, frame_header, segments
from medmoe.model.image_formats.tiff import fax, streams, zstandard
from medmoe.model.image_formats.tiff.directory import TiffDirectory
from medmoe.model.image_formats.tiff.libtiff import REVERSED

_LZW, _PACKBITS, _ZSTANDARD = 5, 32773, 50000
_OLD_JPEG, _JPEG, _FAX = 6, 7, (fax.RUN_LENGTH, fax.GROUP_3, fax.GROUP_4)
_ALIKE = (1, _OLD_JPEG, _JPEG)
"""Compressions of which the order of bits says nothing about the codes."""
_JPEG_COMPONENTS = (1, 3, 4)
"""Components of a JPEG that Pillow decodes alone."""
_TABLES = {0xC4, 0xDB}
"""Markers of the tables without which a JPEG is no file of its own."""
_BLOCKS = 16
"""Rows of the largest JPEG blocks."""
_HEAD = 8
"""Bytes of the file before anything else."""
_PADDING = 4
"""Bytes to a multiple of which writers fill up a strip."""
_LARGEST_LZW = 2**21
"""Bytes of LZW data that are counted: 0.6 seconds."""
_CLEAR, _END = 256, 257
_SHORTEST, _LONGEST = 9, 12
"""Bits of an LZW code."""
_LENGTHS = (1,) * 256 + (0, 0)
"""Bytes that each LZW code stands for, after a clear code."""


def has_excess(data: bytes, page: TiffDirectory) -> bool:
    """Return whether a page has more strips or tiles than its size takes, or a strip more rows or columns.

    Raises DamagedImageError where some are missing, or what Pillow raises on damaged data.
    """
    offsets, counts = page.parts
    tile, (width, height) = page.tile, page.size
    across = 1 if tile is None else -(-width // max(tile[0], 1))
    strip = max(page.rows_per_strip if tile is None else tile[1], 1)
    strips = -(-height // strip)
    needed = page.planes * strips * across
    if page.compression != _OLD_JPEG and (len(offsets) < needed or min(offsets[:needed], default=0) < _HEAD):
        raise DamagedImageError("the image is damaged: strips or tiles of the TIFF are missing")
    if page.compression == _OLD_JPEG and _has_excess_old_jpeg(data, page):
        return True
    if len(offsets) != len(counts) or len(offsets) != needed:
        return len(offsets) > needed
    last = height - strip * (strips - 1)
    if page.compression == _JPEG:
        columns = width if tile is None else min(tile[0], width)
        return _has_excess_blocks(data, page, columns, min(strip, height), last=last, at=(strips - 1) * across)
    if tile is not None:
        # Every tile is whole, at the edges too.
        strips, last, width = 1, strip, tile[0]
    elif page.compression in _FAX:
        fax.check_strips([_coded(data, page, index) for index in range(strips)], page, strip)
        return False
    if not page.bits:
        return False
    if _has_excess_rows(data, page, strip, strips=strips, last=last, width=width):
        return True
    if page.compression in streams.COMPRESSIONS:
        most = 2 * strip * page.row_bytes(width)[0]
        # The first and the last strip have been measured.
        between = set(range(len(offsets))) - {0, strips - 1}
        return any(_stream_size(_coded(data, page, index), page, most=most) > most for index in between)
    return False


def _stream_size(coded: bytes, page: TiffDirectory, *, most: int) -> int:
    """Return how many bytes a stream holds, counted until they exceed `most`.

    Raises DamagedImageError where it is not what was written.
    """
    size, is_whole = streams.measure(coded, page.compression, most=most)
    if not is_whole and size <= most:
        raise DamagedImageError("the image is damaged or truncated: a compressed strip of the TIFF is not whole")
    return size


def _has_excess_blocks(data: bytes, page: TiffDirectory, columns: int, rows: int, *, last: int, at: int) -> bool:
    """Return whether the only JPEG of a page has more rows than it announces; `at` is the first one of the last row."""
    for index, needed in ((0, rows), (at, last)):
        frame = frame_header(_coded(data, page, index))
        if frame and frame.height and (frame.width < columns or frame.height < needed):
            raise DamagedImageError("the image is damaged: a JPEG in the TIFF is smaller than its strip or tile")
    if not all(_is_whole_jpeg(data, page, index) for index in range(len(page.parts[0]))):
        raise DamagedImageError("the image is damaged or truncated: scan data of a JPEG in the TIFF are missing")
    # Some writers fill up the last rows of blocks.
    return frame is not None and page.tile is None and at == 0 and frame.height - last >= _BLOCKS


def _has_excess_old_jpeg(data: bytes, page: TiffDirectory) -> bool:
    """Return whether the JPEG file in a page of old style has more rows than the page; False where there is no file.

    Raises DamagedImageError where it lacks blocks, which libtiff shows grey.
    """
    offsets, counts = page.parts
    ends = [offset + count for offset, count in zip(offsets, counts, strict=False)]
    begin = page.first(Tag.JpegIFOffset, offsets[0] if len(offsets) == 1 else 0)
    if not begin:
        return False
    coded = data[begin : max([begin + page.first(Tag.JpegIFByteCount, 0), *ends])]
    frame = frame_header(coded)
    if frame is None or not {marker for marker, *_ in segments(coded)} >= _TABLES:
        return False
    if not JpegFile(coded).is_whole():
        raise DamagedImageError("the image is damaged or truncated: scan data of the JPEG in the TIFF are missing")
    return frame.height - page.size[1] >= _BLOCKS


def _is_whole_jpeg(data: bytes, page: TiffDirectory, index: int) -> bool:
    """Return whether the JPEG of a strip or tile holds all its blocks: libtiff shows those that are missing grey."""
    coded, tables = _coded(data, page, index), bytes(page.tags.get(Tag.JPEGTables, ()))
    if tables:
        coded = tables.removesuffix(END) + coded[2:]
    frame = frame_header(coded)
    return frame is None or len(frame.components) not in _JPEG_COMPONENTS or JpegFile(coded).is_whole()


def _has_excess_rows(data: bytes, page: TiffDirectory, strip: int, *, strips: int, last: int, width: int) -> bool:
    row, high = page.row_bytes(width)
    strip, last = -(-strip // high), -(-last // high)
    held = _held_bytes(data, page, strips - 1, last, strip, row)
    parts = strips if page.tile is None else len(page.parts[0]) + 1
    is_short = strips > 1 and 0 < held < last * row
    if page.compression == 1 and (is_short or _overlap(page, strip * row, parts)):
        raise DamagedImageError("the image is damaged or truncated: a strip or tile of the TIFF lacks rows")
    # Some writers fill up the last strip with rows.
    filled = strips > 1 and held == strip * row
    if held >= (last + 1) * row and not filled and not _is_padding(data, page, strips - 1, last * row):
        return True
    first = held if strips == 1 else _held_bytes(data, page, 0, strip, strip, row)
    wide, column = divmod(first, strip)
    wider = wide > row and not column and first - strip * row > _PADDING and held in (wide * last, wide * strip)
    if not wider and (strips == 1 or first < (strip + 1) * row):
        return False
    return not _is_padding(data, page, 0, strip * row)


def _overlap(page: TiffDirectory, size: int, strips: int) -> bool:
    """Return whether a strip begins within the rows of another that says itself to have fewer."""
    offsets, counts = page.parts
    begun = sorted(offsets)
    short = [offset for offset, count in zip(offsets[: strips - 1], counts, strict=False) if 0 < count < size]
    return any(bisect.bisect_left(begun, at + size) > bisect.bisect_right(begun, at) for at in short)


def _coded(data: bytes, page: TiffDirectory, index: int) -> bytes:
    """Return a strip or tile, each byte of codes from its highest bit on."""
    offset, count = (values[index] for values in page.parts)
    coded = data[offset : offset + count]
    return coded.translate(REVERSED.tobytes()) if page.fill_order == 2 and page.compression not in _ALIKE else coded


def _is_padding(data: bytes, page: TiffDirectory, strip: int, start: int) -> bool:
    """Return whether zeros alone follow the first `start` bytes of an uncompressed strip."""
    offset, count = (values[strip] for values in page.parts)
    return page.compression == 1 and not data[offset + start : offset + count].strip(b"\0")


def _held_bytes(data: bytes, page: TiffDirectory, index: int, rows: int, most_rows: int, row: int) -> int:
    """Return how many bytes of samples a strip of `rows` holds, at most two full strips; 0 where that is not known."""
    stored, most = _coded(data, page, index), 2 * most_rows * row
    if page.compression == 1:
        # A count that is wrong tells nothing.
        return len(stored) if len(stored) == page.parts[1][index] else 0
    if page.compression == _PACKBITS:
        return _packbits_size(stored, most=most)
    if page.compression == _LZW and len(stored) <= _LARGEST_LZW:
        return _lzw_size(stored, most=most)
    if page.compression == _ZSTANDARD:
        held = zstandard.held_bytes(stored, rows, row)
        # Of a frame that does not say its size.
        return zstandard.held_bytes(stored, most_rows, row) if held > rows * row else held
    return _stream_size(stored, page, most=most) if page.compression in streams.COMPRESSIONS else 0


def _packbits_size(coded: bytes, *, most: int) -> int:
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


def _lzw_size(coded: bytes, *, most: int) -> int:
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
