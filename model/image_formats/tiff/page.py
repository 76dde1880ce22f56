"""Open a page of a TIFF: with Pillow where it reads the samples as stored, otherwise from the samples themselves."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from medmoe.model.errors import ImageFormatError
from medmoe.model.image_formats.grey_alpha import stretched
from medmoe.model.image_formats.no_data import no_data
from medmoe.model.image_formats.raster_image import Step
from medmoe.model.image_formats.tiff.directory import TiffDirectory
from medmoe.model.image_formats.tiff.libtiff import any_size
from medmoe.model.image_formats.tiff.samples import is_deep, read_samples

_WHITE_IS_ZERO, _COLOURS, _SUBSAMPLED = 0, 2, 6
_PREMULTIPLIED, _ALPHA = 1, 2
_FEW_BITS = 14
"""16-bit colour that uses no more bits holds 14 or fewer."""


@contextmanager
def open_page(data: bytes, index: int, page: TiffDirectory) -> Iterator[Image.Image]:
    """Open a TIFF at a page, whatever size its other pages have. Raises EOFError where Pillow finds no such page."""
    with any_size(), _by_libtiff(page), _opened(data) as opened:
        if index:
            opened.seek(index)
        yield opened


@contextmanager
def _by_libtiff(page: TiffDirectory) -> Iterator[None]:
    """Let libtiff read what Pillow misreads where it is uncompressed. Within `any_size`: the switch is global."""
    misread = page.photometric == _SUBSAMPLED or page.separate_planes or page.fill_order == 2
    by_libtiff = TiffImagePlugin.READ_LIBTIFF
    TiffImagePlugin.READ_LIBTIFF = by_libtiff or misread
    try:
        yield
    finally:
        TiffImagePlugin.READ_LIBTIFF = by_libtiff


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=["TIFF"])
    except UnidentifiedImageError as error:
        # Its directory was read: what Pillow does not know is the layout of samples.
        raise ImageFormatError(
            "TIFF samples of this photometric interpretation and depth are not read; convert the page to RGB with vips"
        ) from error


def restore_tags(image: Image.Image, page: TiffDirectory, *, turned: bool) -> bool:
    """Give an image the tags that Pillow does not find behind a damaged one, and correct its palette.

    Return whether the palette was one of 8-bit values, which writers store where TIFF wants 16 bits.
    """
    if page.icc_profile:
        image.info["icc_profile"] = page.icc_profile
    if not turned:
        # `convert` turns the image upright.
        image.getexif()[ExifTags.Base.Orientation] = page.orientation
    palette = page.palette
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
    if values.shape[-1] > 1 and page.extra_samples[:1] in ((_PREMULTIPLIED,), (_ALPHA,)):
        return _grey_with_alpha(grey, values[..., 1], page, steps)
    if page.bits <= 8 and grey.dtype.kind == "u":
        return Image.fromarray(_eight_bits(grey, page.bits, inverted))
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


def _eight_bits(grey: np.ndarray, bits: int, inverted: bool) -> np.ndarray:
    shades: np.ndarray = np.rint(grey * (255 / (2**bits - 1))).astype(np.uint8)
    return 255 - shades if inverted else shades


def _grey_with_alpha(grey: np.ndarray, alpha: np.ndarray, page: TiffDirectory, steps: list[Step]) -> Image.Image:
    inverted = page.photometric == _WHITE_IS_ZERO
    if grey.dtype == np.uint8 and page.bits == 8 and page.extra_samples[0] == _ALPHA:
        return Image.fromarray(np.stack([255 - grey if inverted else grey, alpha], axis=-1))
    opacity = _opacity(alpha, page.bits)
    wide = grey.astype(np.float64)
    if page.extra_samples[0] == _PREMULTIPLIED:
        np.divide(wide, opacity, out=wide, where=opacity > 0)
    shown = np.rint(opacity * 255).astype(np.uint8)
    if page.bits <= 8 and grey.dtype.kind == "u":
        shades = _eight_bits(np.clip(wide, 0, 2**page.bits - 1), page.bits, inverted)
        return Image.fromarray(np.stack([shades, shown], axis=-1))
    unknown = no_data(wide)
    if unknown.any():
        steps.append("not_a_number")
        shown[unknown], wide[unknown] = 0, 0
    white = float(2**page.bits - 1) if grey.dtype.kind == "u" else 1.0
    steps.append("stretch")
    return stretched(white - wide if inverted else wide, shown, white=white)


def _opacity(alpha: np.ndarray, bits: int) -> np.ndarray:
    """Return alpha as a share; floating-point levels up to 255, or to a larger value, are shares of it."""
    wide = np.nan_to_num(alpha.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if alpha.dtype.kind == "f":
        largest = float(wide.max())
        opaque = 1.0 if largest <= 1 else max(largest, 255.0)
    else:
        opaque = 2.0 ** (bits - (alpha.dtype.kind == "i")) - 1
    return np.clip(wide / opaque, 0, 1)


def _colours(values: np.ndarray, page: TiffDirectory, steps: list[Step]) -> Image.Image:
    colours = values[..., :3]
    if values.dtype.kind == "f":
        shades = _float_colours(colours, steps)
    elif page.bits == 8 and values.dtype.kind == "u":
        shades = colours
    else:
        shades = _integer_colours(colours, page.bits, steps)
    if values.shape[-1] > 3 and page.extra_samples[:1] == (_ALPHA,):
        alpha = np.rint(_opacity(values[..., 3], page.bits) * 255).astype(np.uint8)
        shades = np.concatenate([shades, alpha[..., None]], axis=-1)
    return Image.fromarray(np.ascontiguousarray(shades))


def _integer_colours(values: np.ndarray, bits: int, steps: list[Step]) -> np.ndarray:
    bits = bits - 1 if values.dtype.kind == "i" else bits
    colours = np.clip(values, 0, None).astype(np.uint64)
    held = int(colours.max()).bit_length()
    if bits > 8 and held <= min(bits - 2, bits * _FEW_BITS // 16):
        steps.append("low_bits")
        bits = max(held, 8)
    elif bits > 8:
        steps.append("high_byte")
        high: np.ndarray = (colours >> np.uint64(bits - 8)).astype(np.uint8)
        return high
    scaled: np.ndarray = np.rint(colours * (255 / (2**bits - 1))).astype(np.uint8)
    return scaled


def _float_colours(values: np.ndarray, steps: list[Step]) -> np.ndarray:
    """Return 8 bits: values up to 1 are shares of white, up to 255 levels, larger ones shares of the largest."""
    colours = values.astype(np.float64)
    unknown = ~np.isfinite(colours) | no_data(colours)
    if unknown.any():
        steps.append("not_a_number")
        colours[unknown] = 0
    largest = float(colours.max())
    factor = 255.0 if largest <= 1 else 1.0 if largest <= 255 else 255.0 / largest
    if largest > 255:
        steps.append("stretch")
    return np.clip(np.rint(colours * factor), 0, 255).astype(np.uint8)
