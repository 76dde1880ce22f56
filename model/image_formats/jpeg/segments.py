"""Parse the marker segments of a JPEG or JPEG-LS: its frame and its scans (T.81, annex B)."""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

_START_OF_SCAN, _END_OF_IMAGE, _RESTART_INTERVAL = 0xDA, 0xD9, 0xDD
BASELINE_OR_EXTENDED, PROGRESSIVE, LOSSLESS = (0xC0, 0xC1), 0xC2, (0xC3, 0xF7)
_JPEG_LS = 0xF7
END = b"\xff\xd9"
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_UNUSUAL = {
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "arithmetic-coded JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7), "hierarchical JPEG"), 0xC3: "lossless JPEG", 0xF7: "JPEG-LS",
}  # fmt: skip
"""Codings of which Pillow reads none, or some files of them without a word about missing data."""
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""A marker that ends entropy-coded data."""
_AFTER_JPEG_LS_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""The same of a JPEG-LS, in whose data any byte below 128 follows 255 (T.87, A.1)."""


class FrameHeader(NamedTuple):
    """A frame header (T.81, B.2.2)."""

    marker: int
    precision: int
    height: int
    width: int
    components: tuple[tuple[int, int, int], ...]
    """Identifier of each, and sampling factors across and down."""


class Scan(NamedTuple):
    """One scan, as its header describes it (T.81, B.2.3)."""

    components: bytes
    first: int
    last: int
    high: int
    low: int
    """Coefficients that it codes, and the bits of them that are known before it and unknown behind it."""
    interval: int
    """Units between two restart markers, 0 for no marker."""
    header: int
    begin: int
    end: int
    """Where its header and its entropy-coded data begin, and these end."""


def segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield the marker of each segment, where its parameters begin and end, and where the next marker lies.

    Behind the parameters of a scan lie its entropy-coded data.
    """
    position, after = 2, _AFTER_SCAN
    while position + 5 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        begin = end = following = position + 2
        if marker not in _STANDALONE:
            begin, end = position + 4, begin + max(int.from_bytes(data[begin : begin + 2], "big"), 2)
            following = end
        if marker == _JPEG_LS:
            after = _AFTER_JPEG_LS_SCAN
        if marker == _START_OF_SCAN:
            found = after.search(data, end)
            following = found.start() if found else len(data)
        yield marker, begin, end, following
        position = following


def frame_header(data: bytes) -> FrameHeader | None:
    """Return the header of the first frame, None where no whole one comes before a scan."""
    for marker, begin, _, _ in segments(data):
        if marker == _START_OF_SCAN or begin + 6 > len(data):
            break
        if marker in _START_OF_FRAME:
            precision, height, width, count = struct.unpack_from(">BHHB", data, begin)
            described = data[begin + 6 : begin + 6 + 3 * count]
            components = zip(described[::3], described[1::3], strict=False)
            sampled = tuple((identifier, *divmod(factors, 16)) for identifier, factors in components)
            return FrameHeader(marker, precision, height, width, sampled)
    return None


def scans(data: bytes) -> Iterator[Scan]:
    """Yield each scan of the first image in the file."""
    interval = 0
    for marker, begin, end, following in segments(data):
        parameters = data[begin:end]
        if marker == _END_OF_IMAGE:
            return
        if marker == _RESTART_INTERVAL:
            interval = int.from_bytes(parameters[:2], "big")
        elif marker == _START_OF_SCAN and len(parameters) >= 6:
            first, last, bits = parameters[-3:]
            coefficients = (first, min(last, 63), bits >> 4, bits & 15)
            yield Scan(parameters[1:-3:2], *coefficients, interval, begin - 4, end, following)


def unusual_coding(data: bytes) -> str | None:
    """Return the name of a coding that few programs read: 12 bits, lossless, arithmetic, JPEG-LS; None for others."""
    frame = frame_header(data)
    if frame is None:
        return None
    return _UNUSUAL.get(frame.marker) or (None if frame.precision == 8 else f"JPEG of {frame.precision} bits")


def has_end(data: bytes) -> bool:
    """Return whether the last marker is that of the end, trailing bytes aside."""
    end = data.rfind(END)
    return end >= 0 and data.find(b"\xff\xda", end) < 0


def with_end(data: bytes) -> bytes:
    """Return the file with an end marker, in place of zeros at its end."""
    return data if has_end(data) else data.rstrip(b"\0") + END
