"""Open a page of a TIFF: with Pillow where it reads the samples as stored, otherwise from the samples themselves."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from medmoe.model.errors import ImageFormatError
from medmoe.model.image_formats.no_data import no_data
from medmoe.model.image_formats.raster_image import Step
from medmoe.model.image_formats.tiff.directory import TiffDirectory, read_directories
from medmoe.model.image_formats.tiff.samples import is_deep, read_samples

_WHITE_IS_ZERO, _COLOURS = 0, 2
_ALPHA = 2
_FEW_BITS = 14
"""16-bit colour that uses no more bits holds 14 or fewer."""


_ALARM_LOCK = threading.RLock()


@contextmanager
def _any_size() -> Iterator[None]:
    """Let Pillow open pages of any size; the page asked for is checked against the caller's limits."""
    # The limit is Pillow's global one, and training decodes in threads.
    with _ALARM_LOCK:
        alarm = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = alarm


@contextmanager
def open_page(data: bytes, page: int) -> Iterator[Image.Image]:
    """Open a TIFF at `page`, whatever size its other pages have. Raises EOFError where it has no such page."""
    with _any_size(), _opened(data) as opened:
        if page:
            opened.seek(page)
        yield opened


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=["TIFF"])
    except UnidentifiedImageError as error:
        # Its directory was read: what Pillow does not know is the layout of samples.
        raise ImageFormatError(
            "TIFF samples of this photometric interpretation and depth are not read; convert the page to RGB with vips"
        ) from error


def restore_palette(image: Image.Image, data: bytes, page: int) -> bool:
    """Correct a palette of 8-bit values, which writers store where TIFF wants 16 bits; return whether it was one."""
    palette = read_directories(data, most=page + 1)[page].palette
    if image.mode != "P" or not palette or not 0 < max(palette) < 256:
        return False
    entries = len(palette) // 3
    image.putpalette([palette[channel * entries + entry] for entry in range(entries) for channel in range(3)])
    return True


def deep_image(data: bytes, page: TiffDirectory, steps: list[Step]) -> Image.Image | None:
    """Return the image of a page that Pillow misreads, None for pages that it reads.

    Raises ImageFormatError for samples that are not read, DamagedImageError.
    """
    if page.has_unknown_samples:
        steps.append("samples_ignored")
    if not is_deep(page):
        if page.big and page.big_endian:
            raise ImageFormatError(
                "BigTIFF of big-endian order is read as uncompressed grey or RGB; convert it with tiffcp"
            )
        return None
    with _any_size():
        values = read_samples(data, page)
    image = _colours(values, page, steps) if page.photometric == _COLOURS else _grey(values, page, steps)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = page.orientation
    if page.resolutions:
        exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = page.resolutions
    # `convert` turns the image upright, and brings its colours to sRGB.
    image.info["exif"], image.info["icc_profile"] = exif.tobytes(), page.icc_profile
    return image


def _grey(values: np.ndarray, page: TiffDirectory, steps: list[Step]) -> Image.Image:
    grey = values[..., 0]
    inverted = page.photometric == _WHITE_IS_ZERO
    if inverted:
        steps.append("invert")
    if page.extra_samples[:1] == (_ALPHA,) and values.shape[-1] > 1:
        transparent = values[..., 1] == 0
        if transparent.any() and not transparent.all():
            background = _background(grey[~transparent], inverted, steps)
            grey = grey.copy()
            grey[transparent] = background
    if grey.dtype == np.uint8:
        return Image.fromarray(255 - grey if inverted else grey)
    if grey.dtype == np.uint16:
        return Image.fromarray(65535 - grey if inverted else grey)
    if grey.dtype.kind == "f" and grey.dtype.itemsize < 8:
        small = grey.astype(np.float32)
        return Image.fromarray(np.negative(small, out=small) if inverted else small)
    # In float64 first: large values that differ little would fall together.
    wide = grey.astype(np.float64)
    wide[no_data(wide)] = np.nan
    known = np.isfinite(wide)
    if known.any():
        wide -= wide[known].min()
    return Image.fromarray((-wide if inverted else wide).astype(np.float32))


def _background(opaque: np.ndarray, inverted: bool, steps: list[Step]) -> float:
    """Return the value that is shown where an image is transparent: of black, or of white below a drawing in black."""
    low: np.generic = opaque.min()
    high: np.generic = opaque.max()
    if low != high or opaque.dtype.kind != "u":
        steps.append("over_black")
        extreme: float = (high if inverted else low).item()
        return extreme
    most = int(np.iinfo(opaque.dtype).max)
    shade = most - int(low) if inverted else int(low)
    is_dark = shade * 4 < most
    steps.append("over_white" if is_dark else "over_black")
    return most if is_dark != inverted else 0


def _colours(values: np.ndarray, page: TiffDirectory, steps: list[Step]) -> Image.Image:
    with_alpha = values.shape[-1] > 3 and page.extra_samples[:1] == (_ALPHA,)
    if values.dtype.kind == "f":
        shades = _float_colours(values, steps)
    elif values.dtype.itemsize == 1:
        shades = values.astype(np.uint8)
    else:
        shades = _integer_colours(values, page, steps)
    return Image.fromarray(np.ascontiguousarray(shades[..., : 4 if with_alpha else 3]))


def _integer_colours(values: np.ndarray, page: TiffDirectory, steps: list[Step]) -> np.ndarray:
    bits = page.bits - 1 if values.dtype.kind == "i" else page.bits
    colours = np.clip(values, 0, None).astype(np.uint64)
    held = int(colours[..., :3].max()).bit_length()
    if bits > 8 and held <= min(bits - 2, bits * _FEW_BITS // 16):
        steps.append("low_bits")
        bits = max(held, 8)
        colours[..., :3] = np.rint(colours[..., :3] * (255 / (2**bits - 1)))
        colours[..., 3:] >>= np.uint64(page.bits - 8)
        return colours.astype(np.uint8)
    steps.append("high_byte")
    return (colours >> np.uint64(bits - 8)).astype(np.uint8)


def _float_colours(values: np.ndarray, steps: list[Step]) -> np.ndarray:
    """Return 8 bits: values up to 1 are shares of white, up to 255 levels, larger ones shares of the largest."""
    colours = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(colours[..., :3].max())
    factor = 255.0 if largest <= 1 else 1.0 if largest <= 255 else 255.0 / largest
    if largest > 255:
        steps.append("stretch")
    return np.clip(np.rint(colours * factor), 0, 255).astype(np.uint8)
