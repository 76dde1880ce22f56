"""Read EXIF data from a text chunk of a PNG, where ImageMagick and exiv2 wrote them before PNG had eXIf."""

import binascii
import zlib

_NAMES = (b"Raw profile type exif", b"Raw profile type APP1")
_BEGIN = b"Exif\0\0"
_LARGEST = 2**18
"""Bytes of text: EXIF data of twice 64 KiB, in hexadecimal."""


def raw_exif(kind: bytes, data: bytes) -> bytes | None:
    """Return the EXIF data in a text chunk, empty where they are damaged; None for another chunk.

    The text is an empty line, a name, a number of bytes, and that many bytes in hexadecimal on the lines that follow.
    """
    name, _, text = data.partition(b"\0")
    if kind not in (b"tEXt", b"zTXt") or name not in _NAMES or len(text) > _LARGEST:
        return None
    try:
        if kind == b"zTXt":
            text = zlib.decompressobj().decompress(text[1:], _LARGEST)
        _, _, length, *digits = text.split(b"\n")
        exif = binascii.unhexlify(b"".join(digits))
    except (ValueError, zlib.error):
        return b""
    return exif.removeprefix(_BEGIN) if exif.startswith(_BEGIN) and length.strip() == b"%d" % len(exif) else b""
