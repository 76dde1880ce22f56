"""Tell whether a BMP holds more pixels than its header announces."""

import struct

from PIL import Image

_CORE, _V5 = 12, 124
"""Bytes of the first header, which does not count pixels, and of the one with a colour profile."""


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
