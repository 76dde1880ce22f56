"""Recognise the format of a file from its first bytes."""

import binascii
import re

from medmoe.model.image_formats.signature import is_dicom, raster_format
from medmoe.server.errors import MalformedImage, UnsupportedImage
from medmoe.server.imaging.formats.other_formats import unread_format
from medmoe.server.schemas.images import FileFormat

_DATA_URL = re.compile(r"data:[^,]{0,256};base64,", re.ASCII | re.IGNORECASE)
"""The media type and its parameters say nothing that the file itself does not say better."""
_BREAKS = str.maketrans("", "", "\r\n\t ")
_URL_SAFE = str.maketrans("-_", "+/")


def from_text(text: str) -> bytes:
    """Return the bytes in base64 or in a base64 data URL. Raises MalformedImage.

    The alphabet may be the URL-safe one (RFC 4648, 5), padding may be missing, and lines may be broken.
    """
    prefix = _DATA_URL.match(text)
    encoded = text[prefix.end() :] if prefix else text
    if not encoded.isascii():
        raise MalformedImage()
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
    if is_dicom(data):
        return "DICOM"
    kind = raster_format(data)
    if kind is None:
        raise UnsupportedImage(unread_format(data))
    return kind
