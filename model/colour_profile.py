"""Convert colours by the ICC profile that an image carries."""

import io

from PIL import Image, ImageCms

_HEADER = 128
_DESCRIPTION = 4096
"""Bytes in which a profile describes itself."""
_MODES = ("RGB", "RGBA", "CMYK")


def is_srgb(profile: bytes) -> bool:
    """Return whether a profile describes itself as sRGB, in ASCII or UTF-16; True for grey profiles."""
    if profile[16:20] == b"GRAY":
        return True
    head = profile[_HEADER : _HEADER + _DESCRIPTION].replace(b"\0", b"")
    return b"sRGB" in head or b"srgb" in head


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Return the image, RGB or RGBA, in sRGB; None for a profile that is damaged or of other channels."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode not in _MODES:
        return None
    mode = "RGB" if image.mode == "CMYK" else image.mode
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
