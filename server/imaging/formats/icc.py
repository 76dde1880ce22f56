"""Tell sRGB from other ICC profiles, which are not applied."""

_HEADER = 128
_DESCRIPTION = 4096
"""Bytes in which a profile describes itself."""


def is_srgb(profile: bytes) -> bool:
    """Return whether a profile describes itself as sRGB, in ASCII or UTF-16; True for grey profiles."""
    if profile[16:20] == b"GRAY":
        return True
    head = profile[_HEADER : _HEADER + _DESCRIPTION].replace(b"\0", b"")
    return b"sRGB" in head or b"srgb" in head
