"""Recognise the format of a file from its first bytes."""

import binascii
import re

from medmoe.model.image_formats.signature import raster_format
from medmoe.server.errors import MalformedImage, UnsupportedImage
from medmoe.server.imaging.formats.other_formats import unread_format
from medmoe.server.schemas.images import FileFormat

_DATA_URL = re.compile(r"data:[^,]{0,256};base64,", re.ASCII | re.IGNORECASE)
"""The media type and its parameters say nothing that the file itself does not say better."""
_BREAKS = str.maketrans("", "", "\r\n\t ")
_URL_SAFE = str.maketrans("-_", "+/")
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
    kind = raster_format(data)
    if kind is None:
        raise UnsupportedImage(unread_format(data))
    return kind


def _is_element(data: bytes) -> bool:
    """Return whether a DICOM element begins here: an even, plausible element number, then a VR or a short length."""
    big_endian = data[0] == 0
    element = int.from_bytes(data[2:4], "big" if big_endian else "little")
    if len(data) < 256 or element > 0x1FFF:
        return False
    explicit = data[4:6].isalpha() and data[4:6].isupper()
    return explicit or (not big_endian and int.from_bytes(data[4:8], "little") < 1024)
