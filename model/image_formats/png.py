"""Drop the ancillary chunks of a PNG that say nothing about its pixels, or are damaged."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"tRNS", b"acTL", b"fcTL", b"fdAT", b"eXIf")
_LARGEST_PROFILE = 2**20
"""Bytes of an ICC profile that are unpacked."""
_XMP = b"XML:com.adobe.xmp\0\0"
"""Begins an uncompressed text chunk that may hold the image's orientation."""
_LARGEST_XMP = 2**18


def without_metadata(data: bytes) -> tuple[bytes, bool]:
    """Return the file without text and damaged metadata, and whether any chunk was damaged.

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
        profiled = sound and kind == b"iCCP" and _is_profile(body)
        if kind == b"tRNS" and sound:
            kept.append(_scaled_key(data, data[position:end]))
        elif not ancillary or needed or profiled or (sound and (kind in _KEPT or orienting)):
            kept.append(data[position:end])
        damaged |= not sound and not needed
        position = end
        if kind == b"IEND":
            break
    return b"".join((*kept, data[position:])), damaged


def _is_profile(body: bytes) -> bool:
    """Return whether an iCCP chunk holds a profile that can be unpacked in bounds."""
    name, _, packed = body.partition(b"\0")
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed[1:], _LARGEST_PROFILE)
    except zlib.error:
        return False
    return packed[:1] == b"\0" and len(name) < 80 and unpacking.eof


def _scaled_key(data: bytes, chunk: bytes) -> bytes:
    """Return a tRNS chunk whose grey of 2 or 4 bits is on the scale of 8 bits, to which Pillow brings the pixels."""
    depth, colour = data[24:26]
    if colour or depth not in (2, 4) or chunk[:4] != b"\0\0\0\2":
        return chunk
    grey = struct.unpack_from(">H", chunk, 8)[0] & (2**depth - 1)
    body = b"tRNS" + struct.pack(">H", grey * 255 // (2**depth - 1))
    return chunk[:4] + body + struct.pack(">I", zlib.crc32(body))
