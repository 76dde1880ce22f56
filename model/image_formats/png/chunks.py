"""Split a PNG into its chunks, and drop those that are damaged or say nothing about its pixels."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from medmoe.model.errors import DamagedImageError, ImageFormatError
from medmoe.model.image_formats.png.raw_profile import raw_exif

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_OF_PIXELS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")
"""Ancillary chunks without which other pixels would be shown: damaged ones stay too."""
_OF_IMAGE = (b"eXIf", b"pHYs")
"""Ancillary chunks that may tell the image's orientation and the shape of its pixels."""
_LARGEST_PROFILE = 2**20
"""Bytes of an ICC profile that are unpacked."""
_XMP = b"XML:com.adobe.xmp\0\0"
"""Begins an uncompressed text chunk that may hold the image's orientation."""
_LARGEST_XMP = 2**18
_ONCE = (b"tRNS", b"eXIf", b"pHYs", b"iCCP")
"""Ancillary chunks of which decoders follow the first that is sound and in its place."""
_INDEXED = 3


class Chunk(NamedTuple):
    """A chunk as it is stored; the last one of a torn file lacks data or checksum."""

    kind: bytes
    data: bytes
    checksum: bytes

    @property
    def is_ancillary(self) -> bool:
        return bool(self.kind[0] & 0x20)

    @property
    def is_sound(self) -> bool:
        """Return whether the checksum is right."""
        return self.checksum == _checksum(self.kind, self.data)


def new_chunk(kind: bytes, data: bytes) -> Chunk:
    """Return a chunk with its checksum."""
    return Chunk(kind, data, _checksum(kind, data))


def split_chunks(data: bytes) -> Iterator[Chunk]:
    """Yield each chunk of a PNG."""
    position = len(_SIGNATURE)
    while position + 12 <= len(data):
        begin = position + 8
        end = begin + int.from_bytes(data[position : position + 4], "big")
        yield Chunk(data[position + 4 : begin], data[begin:end], data[end : end + 4])
        position = end + 4


def join_chunks(chunks: Iterable[Chunk], rest: bytes = b"") -> bytes:
    """Return the PNG of these chunks, with what follows them."""
    stored = (part for chunk in chunks for part in (struct.pack(">I", len(chunk.data)), *chunk))
    return b"".join((_SIGNATURE, *stored, rest))


def _checksum(kind: bytes, data: bytes) -> bytes:
    return zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")


def without_metadata(data: bytes) -> tuple[bytes, bool]:
    """Return the file without text and damaged metadata, and whether any chunk was damaged.

    Pillow refuses a whole image for a text of many bytes or one wrong checksum in it. Critical chunks stay as they are.
    EXIF data in a text become a chunk of their own. Raises ImageFormatError for a critical chunk that is not known,
    DamagedImageError for one that comes twice.
    """
    header = data[12:29]
    is_sound = header[:4] == b"IHDR" and zlib.crc32(header) == int.from_bytes(data[29:33], "big")
    if is_sound and (header[14:16] != bytes(2) or header[16] > 1):
        raise ImageFormatError("the PNG is compressed, filtered or interlaced in a way that is not known")
    kept: list[Chunk] = []
    seen: set[bytes] = set()
    position, damaged = len(_SIGNATURE), False
    chunks = list(split_chunks(data))
    kinds = {chunk.kind for chunk in chunks}
    for chunk in chunks:
        kind = chunk.kind
        if len(chunk.checksum) < 4 or not kind.isalpha():
            break
        if not chunk.is_ancillary and kind not in _CRITICAL:
            raise ImageFormatError("the PNG has a part without which it cannot be understood, and which is not known")
        if kind in seen and kind in (b"IHDR", b"PLTE"):
            raise DamagedImageError("the image is damaged: the PNG has two headers or two palettes")
        if kind in seen and kind in _ONCE:
            damaged = True
        elif kind == b"tRNS" and (b"IDAT" in seen or (data[25] == _INDEXED and b"PLTE" not in seen)):
            # Decoders ignore transparency in a wrong place.
            damaged = True
        elif kind == b"tRNS" and chunk.is_sound:
            kept.append(_scaled_key(chunk, *data[24:26]))
        elif not chunk.is_ancillary or kind in _OF_PIXELS:
            kept.append(chunk)
        elif not chunk.is_sound:
            damaged = True
        elif kind in _OF_IMAGE or _is_profile(chunk) or _is_orienting(chunk):
            kept.append(chunk)
        elif b"eXIf" not in kinds and (exif := raw_exif(kind, chunk.data)) is not None:
            # Thousands of texts would take long.
            kinds.add(b"eXIf")
            if exif:
                kept.append(new_chunk(b"eXIf", exif))
        position += 12 + len(chunk.data)
        seen.update(last.kind for last in kept[-1:])
        if kind == b"IEND":
            break
    return join_chunks(kept, data[position:]), damaged


def _is_profile(chunk: Chunk) -> bool:
    """Return whether a chunk holds an ICC profile that can be unpacked in bounds."""
    if chunk.kind != b"iCCP":
        return False
    name, _, packed = chunk.data.partition(b"\0")
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed[1:], _LARGEST_PROFILE)
    except zlib.error:
        return False
    return packed[:1] == b"\0" and len(name) < 80 and unpacking.eof


def _is_orienting(chunk: Chunk) -> bool:
    return chunk.kind == b"iTXt" and chunk.data.startswith(_XMP) and len(chunk.data) <= _LARGEST_XMP


def _scaled_key(chunk: Chunk, depth: int, colour: int) -> Chunk:
    """Return a tRNS chunk whose grey of 2 or 4 bits is on the scale of 8 bits, to which Pillow brings the pixels."""
    if colour or depth not in (2, 4) or len(chunk.data) != 2:
        return chunk
    grey = int.from_bytes(chunk.data, "big") & (2**depth - 1)
    return new_chunk(b"tRNS", struct.pack(">H", grey * 255 // (2**depth - 1)))
