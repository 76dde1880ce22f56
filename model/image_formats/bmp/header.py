"""Parse the headers of a BMP: layout of pixels, colour table, bit fields and colour profile."""

import struct
from dataclasses import dataclass, field

from medmoe.model.errors import DamagedImageError, ImageFormatError

_FILE, _CORE, _INFO, _OS2 = 14, 12, 40, 64
"""Bytes of the file's header, and of the headers behind it: the first, which counts nothing, the next, that of OS/2."""
_WITH_MASKS, _WITH_ALPHA, _WITH_COLOUR_SPACE, _WITH_PROFILE = 52, 56, 108, 124
_SIZES = (_CORE, _INFO, _WITH_MASKS, _WITH_ALPHA, _OS2, _WITH_COLOUR_SPACE, _WITH_PROFILE)
_RAW, _RUNS_8, _RUNS_4, _FIELDS, _ALPHA_FIELDS = 0, 1, 2, 3, 6
_BITS = {_RAW: (1, 2, 4, 8, 16, 24, 32), _RUNS_8: (8,), _RUNS_4: (4,), _FIELDS: (16, 32), _ALPHA_FIELDS: (16, 32)}
_PLAIN_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}
_CALIBRATED, _LINKED, _EMBEDDED = 0, 0x4C494E4B, 0x4D424544
"""Colour spaces: of end points in the header, of a profile's file name, of a profile in the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BmpHeader:
    """What the headers of a BMP say of its pixels."""

    width: int
    height: int
    from_top: bool
    bits: int
    has_runs: bool
    start: int
    """Where the pixels begin."""
    colours: tuple[bytes, ...] = field(repr=False)
    """Blue, green and red of each index of pixels of up to 8 bits."""
    masks: tuple[int, int, int, int]
    """Bits of red, green, blue and alpha in pixels of 16 or 32 bits."""
    resolution: tuple[int, int]
    """Pixels in a metre across and down, 0 where the file does not say."""
    profile: bytes = field(repr=False)
    """The ICC profile in the file; empty without one."""
    has_other_colours: bool
    """Whether the file names a colour space in a way that is not followed."""
    held: int
    """Bytes of pixels that the headers announce, as far as they agree with the file; 0 where they do not."""


def read_header(data: bytes) -> BmpHeader:
    """Return the headers. Raises ImageFormatError for a layout that is not read, DamagedImageError, struct.error."""
    file_size, _, start, size = struct.unpack_from("<IIII", data, 2)
    if size == _CORE:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression, pixels, across, down, used = _RAW, 0, 0, 0, 0
    elif size in _SIZES:
        width, height, _, bits, compression, pixels, across, down, used = struct.unpack_from("<iiHHIIiiI", data, 18)
    elif _CORE < size < _WITH_PROFILE:
        raise _unread()
    else:
        raise DamagedImageError()
    if bits not in _BITS.get(compression, ()) or (size == _OS2 and compression >= _FIELDS):
        raise _unread()
    if width <= 0 or not height:
        raise DamagedImageError("the image is damaged: the BMP has no pixels")
    masks, table_at = _masks(data, size, bits, compression)
    if 0 < start < table_at:
        raise DamagedImageError("the image is damaged: the BMP's pixels begin within its headers")
    entry = 3 if size == _CORE else 4
    colours = _colours(data[table_at : start or len(data)], entry, min(used or 2**bits, 2**bits)) if bits <= 8 else ()
    profile, has_other = _profile(data, size)
    start = start or table_at + entry * len(colours)
    held = file_size - start if file_size == len(data) and size != _CORE else 0
    if profile:
        # It may follow the pixels.
        held = min(held, _FILE + struct.unpack_from("<I", data, 126)[0] - start)
    return BmpHeader(
        width=width,
        height=abs(height),
        from_top=height < 0,
        bits=bits,
        has_runs=compression in (_RUNS_8, _RUNS_4),
        start=start,
        colours=colours,
        masks=masks,
        resolution=(max(across, 0), max(down, 0)),
        profile=profile,
        has_other_colours=has_other,
        held=max(pixels if pixels <= len(data) - start else 0, held),
    )


def _unread() -> ImageFormatError:
    return ImageFormatError("this layout of BMP pixels is not read; save the image as PNG")


def _masks(data: bytes, size: int, bits: int, compression: int) -> tuple[tuple[int, int, int, int], int]:
    """Return the bit fields, and where the colour table begins."""
    behind = _FILE + size
    if compression not in (_FIELDS, _ALPHA_FIELDS):
        return _PLAIN_MASKS.get(bits, (0, 0, 0, 0)), behind
    count = 4 if size >= _WITH_ALPHA or (size == _INFO and compression == _ALPHA_FIELDS) else 3
    found = struct.unpack_from(f"<{count}I", data, _FILE + _INFO)
    red, green, blue, alpha = (*found, 0)[:4]
    overlap = red & green or red & blue or green & blue or alpha & (red | green | blue)
    if overlap or not (red or green or blue) or not all(map(_is_field, (red, green, blue, alpha))):
        raise _unread()
    return (red, green, blue, alpha), behind if size > _INFO else behind + 4 * count


def _is_field(mask: int) -> bool:
    """Return whether the bits of a mask are neighbours."""
    lowest = mask & -mask
    return not mask & (mask + lowest)


def _colours(table: bytes, entry: int, count: int) -> tuple[bytes, ...]:
    found = (table[at : at + 3] for at in range(0, entry * count, entry))
    return tuple(colour for colour in found if len(colour) == 3)


def _profile(data: bytes, size: int) -> tuple[bytes, bool]:
    """Return the profile in the file, and whether it names its colours otherwise."""
    if size < _WITH_COLOUR_SPACE:
        return b"", False
    space, *end_points = struct.unpack_from("<I9I", data, 70)
    if space == _CALIBRATED:
        return b"", any(end_points)
    if size < _WITH_PROFILE:
        return b"", False
    at, length = struct.unpack_from("<II", data, 126)
    if space == _EMBEDDED and length:
        return data[_FILE + at : _FILE + at + length], False
    return b"", space == _LINKED
