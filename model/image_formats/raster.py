"""Read PNG, JPEG, WebP, TIFF and BMP files with Pillow; repair what can be read without guessing."""

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from medmoe.model.errors import ImageFormatError, ImageFrameError
from medmoe.model.image_formats import webp
from medmoe.model.image_formats.bmp.image import read_bmp
from medmoe.model.image_formats.jpeg.file import JpegFile, check_decoded
from medmoe.model.image_formats.jpeg.segments import has_end, unusual_coding, with_end
from medmoe.model.image_formats.no_data import no_data
from medmoe.model.image_formats.pixel_aspect import pixel_aspect, square_pixels
from medmoe.model.image_formats.png.animation import frame_count, still
from medmoe.model.image_formats.png.chunks import without_metadata
from medmoe.model.image_formats.png.colour import colour_profile
from medmoe.model.image_formats.png.pixels import check_pixels, eight_bits
from medmoe.model.image_formats.raster_image import FileLimits, RasterImage, Step, excess_error, keep_metadata
from medmoe.model.image_formats.signature import RasterFormat
from medmoe.model.image_formats.tiff.directory import read_directories
from medmoe.model.image_formats.tiff.layout import require_layout
from medmoe.model.image_formats.tiff.page import deep_image, open_page, restore_tags
from medmoe.model.image_formats.tiff.strips import has_excess
from medmoe.model.image_formats.uniform import is_uniform
from medmoe.model.image_processor import convert

_DARK = 64
"""Level of 255: a drawing whose every shade is darker cannot be seen on black."""
_SOLID = 0.99
"""Share of opaque pixels from which an image is no drawing on transparency."""


class _Frame(NamedTuple):
    """A decoded frame, not yet in 8-bit RGB."""

    image: Image.Image
    size: tuple[int, int]
    colour: str
    aspect: float | None
    frames: int


def read_raster(data: bytes, kind: RasterFormat, *, frame: int = 0, limits: FileLimits) -> RasterImage:
    """Decode one frame of a file of format `kind`.

    Raises what `limits` raise, DamagedImageError, ImageFormatError, ImageFrameError, ImageError, or anything that
    Pillow raises on damaged files.
    """
    steps: list[Step] = []
    with _DECODERS[kind](data, frame, limits, steps) as decoded:
        image = _converted(decoded.image, decoded.aspect, limits, steps)
    return RasterImage(
        image=image,
        size=decoded.size,
        colour=decoded.colour,
        frame=frame,
        frames=decoded.frames,
        steps=tuple(steps),
    )


@contextmanager
def _png(data: bytes, frame: int, limits: FileLimits, steps: list[Step]) -> Iterator[_Frame]:
    profile, ignored = colour_profile(data)
    if ignored:
        steps.append("icc_profile_ignored")
    data, damaged = without_metadata(data)
    if damaged:
        steps.append("metadata_dropped")
    frames, index = frame_count(data), frame
    if 0 < frame < frames:
        limits.check_size(*struct.unpack_from(">II", data, 16))
        limits.check_frames(frames)
        data, index = still(data, frame), 0
    with _decoded(io.BytesIO(data), "PNG", index, limits) as found:
        check_pixels(data, found.image)
        if profile is not None:
            found.image.info["icc_profile"] = profile
        yield found._replace(image=eight_bits(data, found.image, steps), frames=max(frames, found.frames))


@contextmanager
def _jpeg(data: bytes, frame: int, limits: FileLimits, steps: list[Step]) -> Iterator[_Frame]:
    if (coding := unusual_coding(data)) is not None:
        raise ImageFormatError(f"{coding} is not read; convert the image to PNG with djpeg or dcmdjpeg (DCMTK)")
    if not has_end(data):
        data = with_end(data)
        steps.append("end_marker_added")
    file = JpegFile(data)
    with _decoded(file, "JPEG", frame, limits) as found:
        check_decoded(file, found.image)
        yield found


@contextmanager
def _webp(data: bytes, frame: int, limits: FileLimits, _: list[Step]) -> Iterator[_Frame]:
    webp.check_file(data, limits)
    with _decoded(io.BytesIO(data), "WEBP", frame, limits) as found:
        webp.check_decoded(data, found.image)
        yield found


@contextmanager
def _tiff(data: bytes, frame: int, limits: FileLimits, steps: list[Step]) -> Iterator[_Frame]:
    pages = read_directories(data, most=limits.max_frames + 1)
    limits.check_frames(len(pages))
    _require_frame(frame, len(pages))
    page = pages[frame]
    limits.check_size(*page.size)
    require_layout(page)
    if has_excess(data, page):
        raise excess_error()
    image = deep_image(data, page, steps)
    if image is not None:
        yield _Frame(image, image.size, image.mode, pixel_aspect(image, "TIFF"), len(pages))
        return
    with open_page(data, frame, page) as opened:
        limits.check_size(*opened.size)
        size, colour = opened.size, opened.mode
        turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
        # Pillow turns the image upright when it decodes it.
        aspect = pixel_aspect(opened, "TIFF")
        opened.load()
        if turned:
            steps.append("orientation")
        if restore_tags(opened, page, turned=turned):
            steps.append("lut_descriptor_corrected")
        yield _Frame(opened, size, colour, aspect, len(pages))


@contextmanager
def _bmp(data: bytes, frame: int, limits: FileLimits, steps: list[Step]) -> Iterator[_Frame]:
    _require_frame(frame, 1)
    image = read_bmp(data, limits, steps)
    yield _Frame(image, image.size, image.mode, pixel_aspect(image, "BMP"), 1)


_Decoder = Callable[[bytes, int, FileLimits, list[Step]], AbstractContextManager[_Frame]]
_DECODERS: dict[RasterFormat, _Decoder] = {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp, "TIFF": _tiff, "BMP": _bmp}


@contextmanager
def _decoded(file: io.BytesIO, kind: RasterFormat, index: int, limits: FileLimits) -> Iterator[_Frame]:
    """Decode a frame with Pillow, its size checked; its metadata can be read until the context ends."""
    with Image.open(file, formats=[kind]) as opened:
        limits.check_size(*opened.size)
        frames = getattr(opened, "n_frames", 1)
        limits.check_frames(frames)
        _require_frame(index, frames)
        if index:
            opened.seek(index)
            limits.check_size(*opened.size)
        # Before decoding: a resolution behind the pixels of a PNG is out of place.
        aspect = pixel_aspect(opened, kind)
        opened.load()
        yield _Frame(opened, opened.size, opened.mode, aspect, frames)


def _require_frame(frame: int, frames: int) -> None:
    if frame >= frames:
        raise ImageFrameError(f"frames count from 0 and this image has {frames}")


def _converted(image: Image.Image, aspect: float | None, limits: FileLimits, steps: list[Step]) -> Image.Image:
    """Return the image in 8-bit RGB, upright, of square pixels."""
    image, done = convert(_on_white(_finite(image, steps), steps))
    steps += done
    if aspect is None:
        steps.append("pixel_aspect_ignored")
    elif aspect != 1:
        steps.append("pixel_aspect")
        return square_pixels(image, aspect, limits)
    return image


def _finite(image: Image.Image, steps: list[Step]) -> Image.Image:
    """Return an image in which values that are not numbers are background."""
    if image.mode != "F":
        return image
    values = np.asarray(image)
    unknown = no_data(values)
    if not unknown.any() or unknown.all():
        return image
    steps.append("not_a_number")
    finite = Image.fromarray(np.where(unknown, values[~unknown].min(), values))
    finite.info = image.info
    return finite


def _on_white(image: Image.Image, steps: list[Step]) -> Image.Image:
    """Lay a dark drawing on transparency over white; `convert` lays everything else over black."""
    # Pillow lays no transparent shade under deep grey: `convert` stretches it.
    if not image.has_transparency_data or image.mode.startswith(("I", "F")):
        return image
    layered = image.convert("RGBA")
    alpha = np.asarray(layered.getchannel("A"))
    opaque = alpha >= 128
    if not opaque.any() or opaque.mean() > _SOLID:
        return image
    shades = np.asarray(layered.convert("RGB").convert("L"))[opaque]
    if np.percentile(shades, 99) >= _DARK:
        return image
    whitened = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), layered).convert("RGB")
    if is_uniform(whitened):
        return image
    steps.append("over_white")
    keep_metadata(whitened, image)
    return whitened
