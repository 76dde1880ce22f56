"""Read a WebP's canvas size and compressed data from its chunks."""

from collections.abc import Iterator


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
