"""Check a WebP before and after Pillow decodes it: its canvas, whether it holds all its data, and no more."""

import io
from collections.abc import Iterator

from PIL import Image

from medmoe.model.errors import DamagedImageError
from medmoe.model.image_formats.no_data import has_lost_bytes
from medmoe.model.image_formats.raster_image import FileLimits, excess_error

_CODED = (b"VP8 ", b"VP8L")
"""Chunks of compressed data, without transparency, which may be stored as it is."""
_FRAME, _FRAME_HEADER = b"ANMF", 16
"""Chunk of an animation's frame, which holds bytes of its own and then chunks."""
_ENDS = (bytes.fromhex("5aa53cc30ff0") * 2, bytes.fromhex("e7811bf97e18") * 2, bytes(12), b"\xff" * 12)


def check_file(data: bytes, limits: FileLimits) -> None:
    """Check a file before Pillow allocates its canvas. Raises what `limits` raise, DamagedImageError."""
    size = _canvas_size(data)
    if size:
        limits.check_size(*size)
    width, height = size or (0, 0)
    coded = (data[begin:end] for kind, begin, end in _chunks(data) if kind in _CODED)
    if any(has_lost_bytes(each, pixels=width * height) for each in coded):
        raise DamagedImageError("the image is damaged: zeros stand in place of its data")


def check_decoded(data: bytes, decoded: Image.Image) -> None:
    """Raise DamagedImageError where a still file holds more data than its size takes.

    Other bytes at the end of its data change every image that needs them.
    """
    others = list(_with_other_ends(data))
    try:
        is_same = bool(others) and all(_pixels(other) == decoded.tobytes() for other in others)
    except OSError:
        return
    if is_same:
        raise excess_error()


def _canvas_size(data: bytes) -> tuple[int, int] | None:
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


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, begin and end of each chunk, those in frames of an animation too."""
    position = 12
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8
        yield kind, position, position + length
        position += _FRAME_HEADER if kind == _FRAME else length + length % 2


def _with_other_ends(data: bytes) -> Iterator[bytes]:
    """Yield a still file with other bytes at the end of its compressed data."""
    kind, begin, end = next((chunk for chunk in _chunks(data) if chunk[0] in (*_CODED, _FRAME)), (_FRAME, 0, 0))
    if kind in _CODED and end - begin > 32 and end <= len(data):
        for other in _ENDS:
            yield data[: end - len(other)] + other + data[end:]


def _pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
        return image.tobytes()
