"""Drop the ancillary chunks of a PNG that say nothing about its pixels, or are damaged."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"tRNS", b"acTL", b"fcTL", b"fdAT", b"eXIf")
_XMP = b"XML:com.adobe.xmp\0\0"
"""Begins an uncompressed text chunk that may hold the image's orientation."""
_LARGEST_XMP = 2**18


def without_metadata(data: bytes) -> tuple[bytes, bool]:
    """Return the file without text, profiles and damaged metadata, and whether any chunk was damaged.

    Pillow refuses a whole image for a text of many bytes or one wrong checksum in it. Critical chunks stay as they are.
    """
    kept, position, damaged = [SIGNATURE], len(SIGNATURE), False
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data) or not kind.isalpha():
            break
        body = data[position + 8 : end - 4]
        ancillary = bool(kind[0] & 0x20)
        sound = not ancillary or zlib.crc32(kind + body) == int.from_bytes(data[end - 4 : end], "big")
        orienting = kind == b"iTXt" and body.startswith(_XMP) and length <= _LARGEST_XMP
        needed = kind in (b"tRNS", b"fcTL", b"fdAT", b"acTL")
        if not ancillary or needed or (sound and (kind in _KEPT or orienting)):
            kept.append(data[position:end])
        damaged |= not sound and not needed
        position = end
        if kind == b"IEND":
            break
    return b"".join((*kept, data[position:])), damaged
