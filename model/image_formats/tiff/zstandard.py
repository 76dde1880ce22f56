"""Tell whether a Zstandard frame holds more than a strip takes (RFC 8878)."""

import struct

from medmoe.model.image_formats.tiff.libtiff import decoded_strip, grey_tags

_MAGIC = b"\x28\xb5\x2f\xfd"
_SINGLE, _CHECKSUM, _RUN = 0x20, 0x04, 1
_SIZES = (0, 2, 4, 8)
"""Bytes of the content's size, by the upper two bits of the descriptor."""
_DICTIONARIES = (0, 1, 2, 4)
_BLOCK = 2**17
"""Bytes of the largest block."""
_FILLER = b"\x5a"
_COMPRESSION = 50000


def held_bytes(coded: bytes, rows: int, row: int) -> int:
    """Return how many bytes a frame holds, or whether more than `rows` of `row` bytes: one row more.

    0 where that is not known.
    """
    if coded[:4] != _MAGIC or len(coded) < 16:
        return 0
    descriptor = coded[4]
    size = _SIZES[descriptor >> 6] or int(bool(descriptor & _SINGLE))
    at = 5 + (not descriptor & _SINGLE) + _DICTIONARIES[descriptor & 3]
    if size:
        return int.from_bytes(coded[at : at + size], "little") + (256 if size == 2 else 0)
    if row > _BLOCK:
        return 0
    return (rows + _follows(coded, at, rows, row, descriptor & ~_CHECKSUM)) * row


def _follows(coded: bytes, at: int, rows: int, row: int, descriptor: int) -> bool:
    """Return whether the row behind the first `rows` is the frame's own, and not that of a block put behind it."""
    while True:
        if at + 3 > len(coded):
            return False
        head = int.from_bytes(coded[at : at + 3], "little")
        following = at + 3 + (1 if head >> 1 & 3 == _RUN else head >> 3)
        if head & 1:
            break
        at = following
    opened = struct.pack("<I", head & ~1)[:3]
    filler = struct.pack("<I", row << 3 | _RUN << 1 | 1)[:3] + _FILLER
    changed = coded[:4] + bytes((descriptor,)) + coded[5:at] + opened + coded[at + 3 : following] + filler
    tags = grey_tags(row, rows + 1, bits=8, compression=_COMPRESSION)
    return bool((decoded_strip(changed, tags)[rows] != _FILLER[0]).any())
