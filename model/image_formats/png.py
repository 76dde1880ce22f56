"""Drop the ancillary chunks of a PNG that say nothing about its pixels, or are damaged; count its rows."""

import struct
import zlib
from collections.abc import Iterator

from medmoe.model.errors import DamagedImageError, ImageFormatError
from medmoe.model.image_formats.no_data import inflated

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"tRNS", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"pHYs")
_LARGEST_PROFILE = 2**20
"""Bytes of an ICC profile that are unpacked."""
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_FILTERS = 5
"""Ways in which the bytes of a row are predicted."""
_XMP = b"XML:com.adobe.xmp\0\0"
"""Begins an uncompressed text chunk that may hold the image's orientation."""
_LARGEST_XMP = 2**18
_INDEXED = 3
_SAMPLES = {2: 3, 4: 2, 6: 4}
"""Samples of a pixel by colour type, where it is not one."""
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass, and the steps to the next."""


def without_metadata(data: bytes) -> tuple[bytes, bool]:
    """Return the file without text and damaged metadata, and whether any chunk was damaged.

    Pillow refuses a whole image for a text of many bytes or one wrong checksum in it. Critical chunks stay as they are.
    Raises ImageFormatError for one that is not known.
    """
    header = data[12:29]
    is_sound = header[:4] == b"IHDR" and zlib.crc32(header) == int.from_bytes(data[29:33], "big")
    if is_sound and (header[14:16] != bytes(2) or header[16] > 1):
        raise ImageFormatError("the PNG is compressed, filtered or interlaced in a way that is not known")
    kept, position, damaged = [SIGNATURE], len(SIGNATURE), False
    seen: set[bytes] = set()
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
        if not ancillary and kind not in _CRITICAL:
            raise ImageFormatError("the PNG has a part without which it cannot be understood, and which is not known")
        profiled = sound and kind == b"iCCP" and _is_profile(body)
        if kind == b"tRNS" and (b"IDAT" in seen or (data[25] == _INDEXED and b"PLTE" not in seen)):
            # Decoders ignore transparency in a wrong place.
            damaged = True
        elif kind == b"tRNS" and sound:
            kept.append(_scaled_key(data, data[position:end]))
        elif not ancillary or needed or profiled or (sound and (kind in _KEPT or orienting)):
            kept.append(data[position:end])
        damaged |= not sound and not needed
        position = end
        seen.add(kind)
        if kind == b"IEND":
            break
    return b"".join((*kept, data[position:])), damaged


def excess_bytes(data: bytes) -> int:
    """Return how many bytes of pixels a PNG holds beyond those that the size in its header takes, negative for missing.

    0 where less than a row is too much. Raises DamagedImageError for rows that are predicted in an unknown way,
    zlib.error for damaged data.
    """
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBB2xB", data, 16)
    bits = depth * _SAMPLES.get(colour, 1)
    passes = []
    for left, top, right, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            passes.append((rows, 1 + (columns * bits + 7) // 8))
    taken, row = sum(rows * length for rows, length in passes), (width * bits + 7) // 8
    held = _checked_size(inflated(_pixel_data(data), most=taken + row), passes)
    return held - taken if held < taken or held - taken > row else 0


def _checked_size(pieces: Iterator[bytes], passes: list[tuple[int, int]]) -> int:
    """Return how many bytes the pieces have, the first byte of each row being checked."""
    held = 0
    left = [(rows * length, length) for rows, length in passes][::-1]
    at = 0
    for piece in pieces:
        held += len(piece)
        while piece and left:
            size, length = left[-1]
            part, piece = piece[: size - at], piece[size - at :]
            if max(part[-at % length :: length], default=0) >= _FILTERS:
                raise DamagedImageError("the image is damaged: rows of the PNG are predicted in an unknown way")
            at += len(part)
            if at == size:
                left.pop()
                at = 0
    return held


def palette_size(data: bytes) -> int:
    """Return the number of colours in the palette of a PNG."""
    return next((len(body) // 3 for kind, body in chunks(data) if kind == b"PLTE"), 0)


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of each chunk."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length


def _pixel_data(data: bytes) -> Iterator[bytes]:
    """Yield the content of each IDAT chunk."""
    return (body for kind, body in chunks(data) if kind == b"IDAT")


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
