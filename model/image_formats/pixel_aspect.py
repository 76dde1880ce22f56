"""Make the pixels of an image square, as its horizontal and vertical resolution say."""

import contextlib
from collections.abc import Iterator

from PIL import ExifTags, Image

from medmoe.model.image_formats.raster_image import FileLimits
from medmoe.model.image_formats.signature import RasterFormat

_EQUAL = 0.01
"""Share by which two resolutions may differ and are still taken for equal: writers round them."""
_MOST = 4.0
"""Largest ratio that is taken for a fact; fax pages and optical coherence tomography come to 3."""
_SIDEWAYS = range(5, 9)
"""EXIF orientations that exchange rows and columns."""


def pixel_aspect(opened: Image.Image, kind: RasterFormat) -> float | None:
    """Return the height of a pixel over its width, of the image upright; 1 where the file does not say.

    None where the file says something that cannot be followed: two different ratios, one of over 4, or a JPEG's JFIF
    ratio without unit, which ffmpeg and Photoshop write as width over height and the standard (T.871) the other way.
    """
    with contextlib.suppress(Exception):  # Damaged metadata raise anything.
        found = set(_ratios(opened, kind))
        if not found:
            return 1.0
        if len(found) > 1 or None in found:
            return None
        (ratio,) = found
        sideways = opened.getexif().get(ExifTags.Base.Orientation, 1) in _SIDEWAYS
        return 1 / ratio if sideways and ratio else ratio
    return 1.0


def square_pixels(image: Image.Image, aspect: float, limits: FileLimits) -> Image.Image:
    """Return the image enlarged to pixels as high as wide. Raises what `limits` raise."""
    width, height = image.size
    size = (width, round(height * aspect)) if aspect > 1 else (round(width / aspect), height)
    limits.check_size(*size)
    return image.resize(size, Image.Resampling.BICUBIC)


def _ratios(opened: Image.Image, kind: RasterFormat) -> Iterator[float | None]:
    """Yield each ratio that the file states, 1 for nearly equal resolutions, None for one that cannot be followed."""
    info = opened.info
    if kind == "JPEG":
        stated = _ratio(info.get("jfif_density"))
        if info.get("jfif_unit"):
            yield from stated
        elif stated and stated != [1.0]:
            yield None
    elif kind in ("PNG", "BMP"):
        yield from _ratio(info.get("dpi") or info.get("aspect"))
    exif = opened.getexif()
    yield from _ratio((exif.get(ExifTags.Base.XResolution), exif.get(ExifTags.Base.YResolution)))


def _ratio(resolutions: object) -> list[float | None]:
    """Return the ratio of two pixel densities in a list, nothing where there are not two."""
    if not isinstance(resolutions, tuple) or len(resolutions) != 2 or not all(resolutions):
        return []
    across, down = (float(each) for each in resolutions)
    if not (across > 0 and down > 0):
        return []
    ratio = across / down
    if abs(ratio - 1) <= _EQUAL:
        return [1.0]
    return [ratio if 1 / _MOST <= ratio <= _MOST else None]
