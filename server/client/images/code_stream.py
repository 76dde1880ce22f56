"""Blank what a JPEG, JPEG-LS or JPEG 2000 code stream says beside its pixels: comments, application data, boxes."""

from collections.abc import Iterator

from medmoe.client.errors import InvalidInput
from medmoe.model.image_formats.jpeg.segments import segments
from medmoe.model.image_formats.signature import JP2, JPEG, JPEG_2000

_BLANK = b" "
"""Not zero: the service takes many zeros in a stream for lost data."""
_END = 0xD9
_OF_PIXELS = frozenset({0x01, *range(0xC0, 0xD9), *range(0xDA, 0xE0), 0xF7, 0xF8})
"""Markers of a JPEG: frames, tables, scans and restarts, and those of JPEG-LS (T.81 B.1.1.3, T.87 C.1.1)."""
_OF_COLOURS = {0xE0: (b"JFIF\0", 14), 0xE8: (b"mrfx", 5), 0xEE: (b"Adobe", 12)}
"""Application data by which decoders tell the colours: how they begin, and their length."""
_THUMBNAIL = 12
"""Where JFIF data tell the size of the thumbnail that follows them."""
_TILE, _TILE_DATA, _COMMENT, _CODE_STREAM_END = 0x90, 0x93, 0x64, 0xD9
_TILE_HEADER = 12
_OF_JPEG_2000 = frozenset({0x50, 0x51, 0x52, 0x53, *range(0x55, 0x5A), *range(0x5C, 0x62), 0x63, *range(0x70, 0x7A)})
"""Segments that describe the coded data (T.800 A.2, T.801 A.2, T.814 A.1)."""
_ALONE = range(0x30, 0x40)
"""Markers without a segment."""
_BOXES = frozenset({b"jP  ", b"ftyp", b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef", b"res "})
_HEADER_BOX, _STREAM_BOX = b"jp2h", b"jp2c"
Span = tuple[int, int]


def without_metadata(stream: bytes) -> bytes:
    """Return the stream, as long as it was and with the same pixels, but with spaces for everything else.

    Raises InvalidInput for a stream that cannot be followed.
    """
    if stream.startswith(JPEG):
        spans = _jpeg(stream)
    elif stream.startswith(JPEG_2000):
        spans = _jpeg_2000(stream, 0, len(stream))
    elif stream.startswith(JP2):
        spans = _boxes(stream, 0, len(stream))
    else:
        raise _unknown()
    found = bytearray(stream)
    for begin, end in spans:
        end = min(end, len(found))
        found[begin:end] = _BLANK * max(end - begin, 0)
    if stream.startswith(JPEG):
        _remove_thumbnail(found)
    return bytes(found)


def _unknown() -> InvalidInput:
    return InvalidInput(
        "the file holds a compressed frame that cannot be followed, so that a comment in it may remain; export it as "
        "uncompressed pixels, as with gdcmconv --raw"
    )


def _jpeg(stream: bytes) -> Iterator[Span]:
    next_ = 2
    for marker, begin, end, following in segments(stream):
        if marker == _END:
            yield from _behind(stream, begin - 2, len(stream))
            return
        prefix, length = _OF_COLOURS.get(marker, (b"", 0))
        if length and stream.startswith(prefix, begin) and end - begin >= length:
            yield begin + length, end
        elif marker not in _OF_PIXELS:
            yield begin, end
        next_ = following
    # Padding may follow an end marker that has no room for parameters.
    if stream[next_ : next_ + 1] not in (b"", b"\xff"):
        raise _unknown()


def _remove_thumbnail(stream: bytearray) -> None:
    """Say in each JFIF segment that there is no thumbnail, which may show what was covered in the image."""
    for marker, begin, end, _ in segments(bytes(stream)):
        at = begin + _THUMBNAIL
        if marker == 0xE0 and stream.startswith(b"JFIF\0", begin) and at + 2 <= min(end, len(stream)):
            stream[at : at + 2] = bytes(2)


def _behind(stream: bytes, begin: int, end: int) -> Iterator[Span]:
    """Yield what follows the end of a stream, unless it is padding."""
    if stream[begin:end].strip(b"\0"):
        yield begin, end


def _jpeg_2000(stream: bytes, begin: int, end: int) -> Iterator[Span]:
    at, tile_end = begin + 2, end
    while at + 4 <= end:
        if not stream[at:end].strip(b"\0"):
            return
        if stream[at] != 0xFF:
            raise _unknown()
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker == _CODE_STREAM_END:
            yield from _behind(stream, at + 2, end)
            return
        if marker == _TILE:
            size = int.from_bytes(stream[at + 6 : at + 10], "big")
            last = stream.rfind(b"\xff\xd9", at, end)
            tile_end = at + max(size, _TILE_HEADER) if size else last if last > at else end
            at += _TILE_HEADER
        elif marker == _TILE_DATA:
            at = max(tile_end, at + 2)
        elif marker in _ALONE:
            at += 2
        else:
            if marker not in _OF_JPEG_2000:
                # A comment begins with the number of its kind.
                yield at + (6 if marker == _COMMENT else 4), at + 2 + length
            at += 2 + max(length, 2)


def _boxes(stream: bytes, begin: int, end: int) -> Iterator[Span]:
    at = begin
    while at + 8 <= end:
        length, kind = int.from_bytes(stream[at : at + 4], "big"), stream[at + 4 : at + 8]
        head = 16 if length == 1 else 8
        if length == 1:
            length = int.from_bytes(stream[at + 8 : at + 16], "big")
        box_end = min(at + length, end) if length else end
        if length and length < head:
            raise _unknown()
        if kind == _STREAM_BOX:
            yield from _jpeg_2000(stream, at + head, box_end)
        elif kind == _HEADER_BOX:
            yield from _boxes(stream, at + head, box_end)
        elif kind not in _BOXES:
            yield at + head, box_end
        at = box_end
