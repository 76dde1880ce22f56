"""Read a WebP's canvas size, and tell whether it holds all its data, and no more."""

import io
from collections.abc import Iterator

from PIL import Image

from medmoe.model.image_formats.no_data import has_lost_bytes

_LOST = 512
"""Zero bytes that no encoder writes in a row; in larger images, a byte for as many pixels."""
_ENDS = (bytes.fromhex("5aa53cc30ff0") * 2, bytes.fromhex("e7811bf97e18") * 2, bytes(12), b"\xff" * 12)


def canvas_size(data: bytes) -> tuple[int, int] | None:
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


def has_lost_data(data: bytes, size: tuple[int, int] | None) -> bool:
    """Return whether zeros stand in place of the compressed data of a WebP whose canvas has `size`."""
    most = max(_LOST, size[0] * size[1] // _LOST) if size else _LOST
    return any(has_lost_bytes(coded, most=most) for coded in _coded(data))


def _coded(data: bytes) -> Iterator[bytes]:
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


def has_excess(data: bytes, opened: Image.Image) -> bool:
    """Return whether a still WebP holds more data than its size takes; `opened` is the file, decoded.

    Other bytes at the end of its data change every image that needs them.
    """
    others = list(_with_other_ends(data))
    try:
        return bool(others) and all(_pixels(other) == opened.tobytes() for other in others)
    except OSError:
        return False


def _with_other_ends(data: bytes) -> Iterator[bytes]:
    position = 12
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + length
        if kind in (b"VP8 ", b"VP8L") and length > 32 and end <= len(data):
            for other in _ENDS:
                yield data[: end - len(other)] + other + data[end:]
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            return
        position = end + length % 2


def _pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
        return image.tobytes()
