"""Express the colour chunks of a PNG as an ICC profile (PNG third edition, 4.3)."""

import struct
from itertools import takewhile

from medmoe.model.colour_profile import SRGB_PRIMARIES, SRGB_WHITE, plain_profile
from medmoe.model.image_formats.png.chunks import split_chunks

_GREY = (b"\0", b"\4")
"""Colour types of grey samples."""
_SRGB_GAMMA = 45455
_INSIGNIFICANT = 0.05
"""Share by which a gamma may differ from sRGB's and is still taken for it, as libpng does."""
_SAME_PLACE = 0.005
"""Distance of chromaticities that are meant to be equal."""
_SRGB_CODE_POINTS = b"\x01\x0d"


def colour_profile(data: bytes) -> tuple[bytes | None, bool]:
    """Return the ICC profile that cHRM and gAMA mean, and whether a chunk that is present cannot be followed.

    None for sRGB, and where iCCP, sRGB or cICP goes before them.
    """
    before_pixels = [*takewhile(lambda chunk: chunk.kind != b"IDAT", split_chunks(data))]
    # Backwards: the first of several counts.
    chunks = {chunk.kind: chunk.data for chunk in reversed(before_pixels) if chunk.is_ancillary and chunk.is_sound}
    if chunks.get(b"cICP", b"")[:2] == _SRGB_CODE_POINTS or b"iCCP" in chunks or b"sRGB" in chunks:
        return None, False
    if b"cICP" in chunks:
        return None, True
    return _described(chunks, grey=data[25:26] in _GREY)


def _described(chunks: dict[bytes, bytes], *, grey: bool) -> tuple[bytes | None, bool]:
    gamma = _numbers(chunks, b"gAMA", 1)
    places = None if grey else _numbers(chunks, b"cHRM", 8)
    is_srgb = (
        places is None
        or max(abs(one / 1e5 - other) for one, other in zip(places, (*SRGB_WHITE, *SRGB_PRIMARIES), strict=True))
        <= _SAME_PLACE
    )
    if gamma is None or not gamma[0]:
        # Without a gamma, primaries say nothing: browsers ignore them.
        return None, not is_srgb
    if is_srgb and abs(gamma[0] / _SRGB_GAMMA - 1) <= _INSIGNIFICANT:
        return None, False
    white, primaries = SRGB_WHITE, (None if grey else SRGB_PRIMARIES)
    if places is not None:
        white, primaries = (places[0] / 1e5, places[1] / 1e5), tuple(place / 1e5 for place in places[2:])
    profile = plain_profile(1e5 / gamma[0], white=white, primaries=primaries)
    return profile, profile is None


def _numbers(chunks: dict[bytes, bytes], kind: bytes, count: int) -> tuple[int, ...] | None:
    body = chunks.get(kind)
    return struct.unpack(f">{count}I", body) if body is not None and len(body) == 4 * count else None
