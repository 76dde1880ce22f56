"""Make images that a service should refuse or survive: huge ones, false headers, two formats in one file."""

import io
import struct
import zlib
from functools import cache
from typing import Any

from PIL import Image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


@cache
def large(side: int = 3000) -> bytes:
    """Return a small file within the size limits that takes over 100 MB and 50 ms of processor time to decode."""
    image = Image.new("RGBA", (side, side), (90, 120, 30, 200))
    image.paste((240, 240, 240, 255), (0, 0, side // 2, side))
    return encoded(image, "PNG", compress_level=1)


def png(width: int, height: int, *, depth: int = 8, body: bytes = b"") -> bytes:
    """Return a file with a well-formed header of the given size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (32, 32)), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def bmp(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (32, 32)), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def tiff(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("L", (32, 32)), "TIFF"))
    (directory,) = struct.unpack("<I", data[4:8])
    for entry in range(struct.unpack("<H", data[directory : directory + 2])[0]):
        at = directory + 2 + 12 * entry
        (tag,) = struct.unpack("<H", data[at : at + 2])
        if tag in (256, 257):
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(data)


def webp(width: int, height: int, *, kind: str = "VP8X") -> bytes:
    """Return a WebP header without data: VP8X (at most 2**24), lossless or lossy (at most 2**14)."""
    if kind == "VP8X":
        body = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == "VP8L":
        body = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(5)
    else:
        body = b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height)
    chunk = kind.ljust(4).encode() + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


BOMBS = {
    "PNG": png, "JPEG": jpeg, "BMP": bmp, "TIFF": tiff, "WebP canvas": webp,
    "WebP lossless": lambda width, height: webp(width, height, kind="VP8L"),
    "WebP lossy": lambda width, height: webp(width, height, kind="VP8 "),
}  # fmt: skip
"""Functions by format; each returns a file whose header announces the given width and height."""
