"""Recognise the format of an image file from its first bytes."""

from typing import Literal

RasterFormat = Literal["PNG", "JPEG", "TIFF", "BMP", "WEBP"]

_MAGIC: tuple[tuple[bytes, RasterFormat], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
)


def raster_format(data: bytes) -> RasterFormat | None:
    """Return the format of `data`, None for one that is not read."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
