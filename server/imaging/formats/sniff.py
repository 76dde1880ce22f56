"""Recognise the format of a file, and the size of a WebP canvas, from its first bytes."""

import binascii
import re
from collections.abc import Iterator

from medmoe.server.errors import MalformedImage, UnsupportedImage
from medmoe.server.schemas.images import FileFormat

_DATA_URL = re.compile(r"data:[^,]{0,256};base64,", re.ASCII | re.IGNORECASE)
"""The media type and its parameters say nothing that the file itself does not say better."""
_BREAKS = str.maketrans("", "", "\r\n\t ")
_URL_SAFE = str.maketrans("-_", "+/")
_MAGIC: tuple[tuple[bytes, FileFormat], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
)
_PREAMBLE = 128
"""Bytes before DICOM's magic word; free for any use, so that a DICOM file may be a TIFF too."""
_WITHOUT_PREAMBLE = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
"""Group of the first element in a DICOM file without preamble: meta header, data set, big-endian data set."""


def from_text(text: str) -> bytes:
    """Return the bytes in base64 or in a base64 data URL. Raises MalformedImage.

    The alphabet may be the URL-safe one (RFC 4648, 5), padding may be missing, and lines may be broken.
    """
    prefix = _DATA_URL.match(text)
    encoded = text[prefix.end() :] if prefix else text
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        encoded = encoded.translate(_BREAKS)
    if not ("+" in encoded or "/" in encoded):
        encoded = encoded.translate(_URL_SAFE)
    if "=" not in encoded:
        encoded += "=" * (-len(encoded) % 4)
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:
        raise MalformedImage() from error


def sniff(data: bytes) -> FileFormat:
    """Return the format of `data`. Raises UnsupportedImage.

    DICOM goes first: its preamble may look like another format.
    """
    if not data:
        raise UnsupportedImage("the image is empty: it has 0 bytes")
    if data[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        return "DICOM"
    if data.startswith(_WITHOUT_PREAMBLE) and _is_element(data):
        return "DICOM"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    raise UnsupportedImage()


def _is_element(data: bytes) -> bool:
    """Return whether a DICOM element begins here: an even, plausible element number, then a VR or a short length."""
    big_endian = data[0] == 0
    element = int.from_bytes(data[2:4], "big" if big_endian else "little")
    if len(data) < 256 or element > 0x1FFF:
        return False
    explicit = data[4:6].isalpha() and data[4:6].isupper()
    return explicit or (not big_endian and int.from_bytes(data[4:8], "little") < 1024)


def webp_coded(data: bytes) -> Iterator[bytes]:
    """Yield the compressed data of a WebP, without transparency, which may be stored as it is, and metadata."""
    position = 12
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8
        if kind == b"ANMF":
            # A frame of an animation: 16 bytes of its own, then chunks.
            position += 16
            continue
        if kind in (b"VP8 ", b"VP8L"):
            yield data[position : position + length]
        position += length + length % 2


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a WebP canvas, which Pillow allocates when it opens the file."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        packed = int.from_bytes(body[1:5], "little")
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None
