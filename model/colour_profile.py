"""Convert colours by the ICC profile that an image carries, and write simple profiles."""

import io
import struct

import numpy as np
from PIL import Image, ImageCms

SRGB_WHITE = (0.3127, 0.329)
SRGB_PRIMARIES: tuple[float, ...] = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""Chromaticities x, y of red, green and blue."""
_HEADER = 128
_DESCRIPTION = 4096
"""Bytes in which a profile describes itself."""
_UNSEEN = 12
"""Levels of 255 by which sRGB's approximations differ from it."""
_MODES = ("RGB", "RGBA", "CMYK")
_GREY_MODES = ("L", "LA")
_KEYED = {"L": "LA", "RGB": "RGBA"}
"""Modes with which one colour may be transparent, and the same with alpha."""
_WHITE = (0.9642, 1.0, 0.8249)
"""XYZ of D50, the white of all profiles."""
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_STEEPEST = 10.0


def is_srgb(profile: bytes) -> bool:
    """Return whether a profile describes itself as sRGB, in ASCII or UTF-16, and hardly changes colours.

    Linear profiles with sRGB's primaries, and wide ones with its curve, have sRGB in their names too.
    """
    head = profile[_HEADER : _HEADER + _DESCRIPTION].replace(b"\0", b"")
    return (b"sRGB" in head or b"srgb" in head) and not _changes_colours(profile)


def _changes_colours(profile: bytes) -> bool:
    """Return whether a profile of curves changes colours visibly; False for one that is damaged or of tables."""
    is_grey = profile[16:20] == b"GRAY"
    if _has_tables(profile) or not (is_grey or profile[16:20] == b"RGB "):
        return False
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 6, 3)
    swatch = Image.fromarray(np.ascontiguousarray(grid[..., 0]) if is_grey else grid)
    converted = _converted(swatch, profile, "RGB", ImageCms.Flags.NOOPTIMIZE)
    if converted is None:
        return False
    return bool(np.abs(np.asarray(converted, int) - np.asarray(swatch.convert("RGB"), int)).max() > _UNSEEN)


def _has_tables(profile: bytes) -> bool:
    """Return whether a profile maps colours by a table, which may fit them to a medium."""
    count = int.from_bytes(profile[_HEADER : _HEADER + 4], "big")
    return b"A2B0" in (profile[at : at + 4] for at in range(_HEADER + 4, _HEADER + 4 + 12 * min(count, 64), 12))


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Return the image, RGB or RGBA, in sRGB; None for a profile that is damaged or of other channels."""
    if image.mode in _KEYED and "transparency" in image.info:
        # The transparent colour is one of the file's, not of sRGB.
        image = image.convert(_KEYED[image.mode])
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in _GREY_MODES:
        return _grey_to_srgb(image, profile)
    if image.mode not in _MODES:
        return None
    return _converted(image, profile, "RGB" if image.mode == "CMYK" else image.mode)


def plain_profile(gamma: float, *, white: tuple[float, float], primaries: tuple[float, ...] | None) -> bytes | None:
    """Return an ICC profile of a power law, for RGB with `primaries` (x, y of red, green, blue), for grey with None.

    None for a gamma or chromaticities that no image has.
    """
    if not 1 / _STEEPEST <= gamma <= _STEEPEST:
        return None
    curve = b"para" + bytes(8) + _fixed((gamma,))
    tags = {b"wtpt": b"XYZ " + bytes(4) + _fixed(_WHITE)}
    if primaries is None:
        tags[b"kTRC"] = curve
    else:
        colourants = _colourants(white, primaries)
        if colourants is None:
            return None
        for index, name in enumerate(b"rgb"):
            tags[bytes([name]) + b"XYZ"] = b"XYZ " + bytes(4) + _fixed(tuple(colourants[:, index]))
            tags[bytes([name]) + b"TRC"] = curve
    table, body = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        table += tag + struct.pack(">II", _HEADER + 4 + 12 * len(tags) + len(body), len(value))
        body += value
    space = b"GRAY" if primaries is None else b"RGB "
    head = struct.pack(">I4sI4s4s4s", _HEADER + len(table) + len(body), b"", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(_WHITE)
    return head.ljust(_HEADER, b"\0") + table + body


def _fixed(values: tuple[float, ...]) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _colourants(white: tuple[float, float], primaries: tuple[float, ...]) -> np.ndarray | None:
    """Return XYZ of red, green and blue as columns [3, 3], adapted to D50; None for chromaticities of no colours."""
    if not all(y > 0 for y in (white[1], *primaries[1::2])):
        return None
    xyz = np.array(
        [[x / y, 1.0, (1 - x - y) / y] for x, y in (white, *zip(primaries[::2], primaries[1::2], strict=True))]
    )
    if abs(np.linalg.det(xyz[1:])) < 1e-6:
        return None
    colourants = xyz[1:].T * np.linalg.solve(xyz[1:].T, xyz[0])
    cones, adapted = _BRADFORD @ xyz[0], _BRADFORD @ np.array(_WHITE)
    if (np.abs(cones) < 1e-6).any():
        return None
    found: np.ndarray = np.linalg.inv(_BRADFORD) @ np.diag(adapted / cones) @ _BRADFORD @ colourants
    return found if np.abs(found).max() < 4 else None


def _grey_to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    if profile[16:20] != b"GRAY":
        return None
    # Little CMS interpolates grey between 33 points: every level is converted for itself.
    levels = _converted(Image.frombytes("L", (256, 1), bytes(range(256))), profile, "RGB", ImageCms.Flags.NOOPTIMIZE)
    if levels is None:
        return None
    shades = image.getchannel(0)
    channels = [shades.point(level.tobytes()) for level in levels.split()]
    if image.mode == "LA":
        return Image.merge("RGBA", [*channels, image.getchannel("A")])
    return Image.merge("RGB", channels)


def _converted(
    image: Image.Image, profile: bytes, mode: str, flags: ImageCms.Flags = ImageCms.Flags.NONE
) -> Image.Image | None:
    try:
        source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode=mode, flags=flags)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
