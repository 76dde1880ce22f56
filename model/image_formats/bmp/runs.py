"""Unpack the runs of a BMP."""

from medmoe.model.errors import DamagedImageError
from medmoe.model.image_formats.raster_image import excess_error

_END_OF_LINE, _END_OF_BITMAP, _MOVE = 0, 1, 2
_NIBBLES = tuple(bytes((byte >> 4, byte & 15)) for byte in range(256))


def unpacked(coded: bytes, width: int, height: int, *, packed: bool) -> tuple[bytes, bool]:
    """Return one byte for each pixel, rows as stored, and whether no pixel is skipped; those that are, are 0.

    Raises DamagedImageError.
    """
    pixels = bytearray(width * height)
    # Some encoders fill up a row to whole words.
    longest = width + -width % (8 if packed else 4)
    x = y = at = written = 0
    while at + 2 <= len(coded):
        count, value = coded[at : at + 2]
        at += 2
        if count:
            run = (_NIBBLES[value] * (count // 2 + 1))[:count] if packed else bytes((value,)) * count
        elif value == _END_OF_LINE:
            x, y = 0, y + 1
            continue
        elif value == _END_OF_BITMAP:
            break
        elif value == _MOVE:
            right, up = coded[at : at + 2].ljust(2, b"\0")
            x, y, at = x + right, y + up, at + 2
            continue
        else:
            size = (value + 1) // 2 if packed else value
            run = coded[at : at + size]
            run = b"".join(_NIBBLES[byte] for byte in run)[:value] if packed else run
            at += size + size % 2
        if y >= height or x + len(run) > longest:
            raise excess_error()
        run = run[: max(width - x, 0)]
        pixels[y * width + x : y * width + x + len(run)] = run
        x, written = x + len(run), written + len(run)
    if y < height - 1 or (y == height - 1 and not x):
        raise DamagedImageError("the image is damaged or truncated: rows of the BMP are missing")
    return bytes(pixels), written == len(pixels)
