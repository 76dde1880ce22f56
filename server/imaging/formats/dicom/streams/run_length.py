"""Decode run-length frames (PS3.5 G)."""

import struct
from collections.abc import Iterator

import numpy as np
from rle.utils import decode_segment

from medmoe.server.errors import UnreadableImage

_HEADER = struct.Struct("<16I")
"""Number of segments, and the offset of each of at most 15."""


def run_length_cells(stream: bytes, *, rows: int, columns: int, samples: int, cell_bytes: int) -> np.ndarray:
    """Return little-endian unsigned cells [samples, rows, columns], each byte of which is a segment of its own.

    Raises UnreadableImage, also where a segment holds more than its pixels.
    """
    pixels = rows * columns
    cells = np.empty((samples, pixels, cell_bytes), np.uint8)
    for index, segment in enumerate(_segments(stream, count=samples * cell_bytes)):
        held = decode_segment(segment)
        if len(held) < pixels:
            raise _too_short()
        # Padding may follow the last run.
        if held[pixels:].strip(held[-1:]):
            raise UnreadableImage(
                "the image is damaged: its run-length frame holds more rows or columns than the DICOM header "
                "announces; export it anew"
            )
        # The highest byte comes first.
        cells[index // cell_bytes, :, cell_bytes - 1 - index % cell_bytes] = np.frombuffer(held, np.uint8, pixels)
    return cells.view(f"<u{cell_bytes}").reshape(samples, rows, columns)


def run_length_bits(stream: bytes, *, rows: int, columns: int) -> np.ndarray:
    """Return uint8 [rows, columns] of 0 and 1 from a run-length frame of 1 bit a pixel.

    Writers store eight pixels in a byte, or one. Raises UnreadableImage.
    """
    found = np.frombuffer(bytes(decode_segment(stream[_HEADER.size :])), np.uint8)
    if found.size >= rows * columns:
        return np.asarray(found[: rows * columns] != 0, np.uint8).reshape(rows, columns)
    if found.size * 8 < rows * columns:
        raise _too_short()
    bits: np.ndarray = np.unpackbits(found, bitorder="little")[: rows * columns]
    return bits.reshape(rows, columns)


def _segments(stream: bytes, *, count: int) -> Iterator[bytes]:
    """Yield the segments, which must be `count` and follow one another. Writers miscount them in the header."""
    if len(stream) < _HEADER.size:
        raise _too_short()
    _, *offsets = _HEADER.unpack_from(stream)
    starts, unused = offsets[:count], offsets[count:]
    ends = [*starts[1:], len(stream)]
    follow = starts[0] == _HEADER.size and all(start < end for start, end in zip(starts, ends, strict=True))
    if len(starts) < count or any(unused) or not follow:
        raise UnreadableImage("the image is damaged: the segments of a run-length frame are not those of its samples")
    for start, end in zip(starts, ends, strict=True):
        yield stream[start:end]


def _too_short() -> UnreadableImage:
    return UnreadableImage("the image is damaged or truncated: a run-length frame ends before the last row")
