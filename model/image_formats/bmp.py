"""Unpack run-length BMP files, and tell whether a BMP holds more pixels than its header announces."""

import struct

from PIL import Image

from medmoe.model.errors import DamagedImageError
from medmoe.model.image_formats.raster_image import FileLimits, excess_error

_CORE, _INFO, _V5 = 12, 40, 124
"""Bytes of the first header, which does not count pixels, of the next, and of the one with a colour profile."""
_RUN_LENGTH = {1: 8, 2: 4}
"""Bits of a pixel by the number of a run-length compression."""
_END_OF_LINE, _END_OF_BITMAP, _MOVE = 0, 1, 2
_NIBBLES = tuple(bytes((byte >> 4, byte & 15)) for byte in range(256))


def without_runs(data: bytes, limits: FileLimits) -> bytes:
    """Return a run-length file with uncompressed pixels of 8 bits, any other file as it is.

    Pillow drops rows without pixels, and cuts rows that are too long. Raises what `limits` raise, DamagedImageError.
    """
    if len(data) < 14 + _INFO:
        return data
    start, header, width, height = struct.unpack_from("<IIii", data, 10)
    bits, compression = struct.unpack_from("<HI", data, 28)
    if header < _INFO or _RUN_LENGTH.get(compression) != bits or width <= 0 or not height:
        return data
    limits.check_size(width, abs(height))
    pixels = _unpacked(data[start:], width, abs(height), packed=bits == 4)
    row = width + -width % 4
    rows = b"".join(pixels[at : at + width].ljust(row, b"\0") for at in range(0, len(pixels), width))
    (colours,) = struct.unpack_from("<I", data, 46)
    changed = bytearray(data[:start])
    struct.pack_into("<HIIiiI", changed, 28, 8, 0, len(rows), *struct.unpack_from("<ii", data, 38), colours or 2**bits)
    struct.pack_into("<I", changed, 2, start + len(rows))
    return bytes(changed) + rows


def has_excess(data: bytes, opened: Image.Image) -> bool:
    """Return whether uncompressed pixels are a row or more longer than the size in the header takes."""
    (tile,) = opened.tile  # type: ignore[attr-defined]
    file_size, _, start, header = struct.unpack_from("<IIII", data, 2)
    if tile.codec_name != "raw" or header == _CORE:
        return False
    row = tile.args[1]
    (announced,) = struct.unpack_from("<I", data, 34)
    # Some writers count no pixels, or no file: what is zero or wrong tells nothing.
    held = file_size - start if file_size == len(data) else 0
    if header == _V5 and struct.unpack_from("<I", data, 130)[0]:
        # A colour profile follows the pixels.
        held = min(held, 14 + struct.unpack_from("<I", data, 126)[0] - start)
    most = max(announced if announced <= len(data) - start else 0, held)
    return bool(most - row * opened.height >= max(row, 1))


def _unpacked(coded: bytes, width: int, height: int, *, packed: bool) -> bytes:
    """Return one byte for each pixel, rows as stored. Pixels that the runs skip are 0."""
    pixels = bytearray(width * height)
    # Some encoders fill up a row to whole words.
    longest = width + -width % (8 if packed else 4)
    x = y = at = 0
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
        x += len(run)
    if y < height - 1 or (y == height - 1 and not x):
        raise DamagedImageError("the image is damaged or truncated: rows of the BMP are missing")
    return bytes(pixels)
