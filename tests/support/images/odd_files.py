"""Write image files that decoders read differently: deep PNG, colour management, CMYK, TIFF of unusual samples."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.support.images.hostile_images import encoded
from tests.support.images.tiff_files import tiff

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
"""Colour types of a PNG."""
_NOISE = np.random.default_rng(5)
_RGBA = _NOISE.integers(0, 256, (40, 48, 4), dtype=np.uint8)
_DEEP = _NOISE.integers(0, 65536, (40, 48, 4), dtype=np.uint16)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, *, bits: int, colour: int, key: tuple[int, ...] = (), before: bytes = b"") -> bytes:
    height, width = samples.shape[:2]
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    elif bits == 8:
        rows = [row.astype(np.uint8).tobytes() for row in samples]
    else:
        spread = (samples[..., None] >> np.arange(bits)[::-1]) & 1
        rows = [np.packbits(row).tobytes() for row in spread.astype(np.uint8)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    keyed = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + before + keyed + pixels + chunk(b"IEND", b"")


def matrix_profile(*, gamma: float, swapped: bool = False) -> bytes:
    """Return an RGB profile with sRGB's primaries, red and green swapped on demand, and a plain gamma."""
    primaries = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)]
    if swapped:
        primaries[:2] = primaries[1::-1]

    def fixed(values: tuple[float, ...]) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    white = (0.9642, 1.0, 0.8249)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(white)}
    for name, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True):
        tags[name] = b"XYZ \0\0\0\0" + fixed(primary)
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(value))
        body += value
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    head += bytes(28) + fixed(white)
    return head.ljust(128, b"\0") + table + body


def without_adobe_marker(data: bytes) -> bytes:
    """Return a JPEG without its APP14 segment."""
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def _colour_png(*before: bytes) -> bytes:
    return png(_RGBA[..., :3], bits=8, colour=COLOUR, before=b"".join(before))


_PRIMARIES = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
_PROFILE = matrix_profile(gamma=1.8, swapped=True)
_INKS = Image.fromarray(_RGBA, "CMYK")
ODD_FILES: dict[str, Callable[[], bytes]] = {
    "PNG of 16-bit RGB": lambda: png(_DEEP[..., :3], bits=16, colour=COLOUR),
    "PNG of 12 bits in 16-bit RGB": lambda: png(_DEEP[..., :3] >> 4, bits=16, colour=COLOUR),
    "PNG of 16-bit RGB with alpha": lambda: png(_DEEP, bits=16, colour=COLOUR_ALPHA),
    "PNG of 16-bit grey with alpha": lambda: png(_DEEP[..., :2], bits=16, colour=GREY_ALPHA),
    "PNG of 4-bit grey with a key": lambda: png(_RGBA[..., 0] >> 4, bits=4, colour=GREY, key=(15,)),
    "PNG with gAMA": lambda: _colour_png(chunk(b"gAMA", struct.pack(">I", 100000))),
    "PNG with gAMA and cHRM": lambda: _colour_png(chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"cHRM", _PRIMARIES)),
    "PNG with sRGB": lambda: _colour_png(chunk(b"sRGB", b"\0")),
    "PNG with iCCP": lambda: _colour_png(chunk(b"iCCP", b"name\0\0" + zlib.compress(_PROFILE))),
    "grey PNG with iCCP": lambda: png(
        _RGBA[..., 0], bits=8, colour=GREY, before=chunk(b"iCCP", b"name\0\0" + zlib.compress(_PROFILE))
    ),
    "PNG with a damaged text": lambda: _colour_png(chunk(b"tEXt", b"Comment\0text")[:-1] + b"\0"),
    "dark drawing on transparency": lambda: png(
        np.dstack([_RGBA[..., :3] // 8, 255 * (_RGBA[..., 3] > 128)]), bits=8, colour=COLOUR_ALPHA
    ),
    "CMYK JPEG with a profile": lambda: encoded(_INKS, "JPEG", icc_profile=_PROFILE),
    "JPEG with a profile": lambda: encoded(_INKS.convert("RGB"), "JPEG", icc_profile=_PROFILE),
    "JPEG without its end": lambda: encoded(_INKS.convert("RGB"), "JPEG")[:-2],
    "white-is-zero TIFF": lambda: tiff(_RGBA[..., 0], photometric=0),
    "white-is-zero TIFF of 16 bits": lambda: tiff(_DEEP[..., 0], photometric=0, order=">"),
    "TIFF of signed 16 bits": lambda: tiff(_DEEP[..., 0].view(np.int16)),
    "TIFF of 16-bit RGB": lambda: tiff(_DEEP[..., :3]),
    "TIFF of 12 bits": lambda: tiff(_DEEP[..., 0] >> 4, bits=12),
    "TIFF of floats without a number": lambda: tiff(np.where(_RGBA[..., 0] > 250, np.nan, _RGBA[..., 0] / 255.0)),
    "BigTIFF": lambda: tiff(_DEEP[..., 0], big=True, order=">"),
}
"""Each kind to a file of it, for which training and the service must have the same pixels."""
