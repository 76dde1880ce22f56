"""Read PNG, JPEG, WebP, TIFF and BMP files with Pillow; repair what can be read without guessing."""

import contextlib
import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from medmoe.model.colour_profile import is_srgb
from medmoe.model.errors import DamagedImageError, ImageFormatError, ImageFrameError
from medmoe.model.image_formats import jpeg, png_animation, png_colour, webp
from medmoe.model.image_formats.bmp.image import read_bmp
from medmoe.model.image_formats.grey_alpha import stretched
from medmoe.model.image_formats.no_data import no_data
from medmoe.model.image_formats.pixel_aspect import pixel_aspect, square_pixels
from medmoe.model.image_formats.png import excess_bytes, palette_size, without_metadata
from medmoe.model.image_formats.raster_image import FileLimits, RasterImage, Step, excess_error
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
_NEEDED = ("exif", "xmp", "XML:com.adobe.xmp", "icc_profile")
"""Metadata by which `convert` turns an image upright and corrects its colours."""


def read_raster(data: bytes, kind: RasterFormat, *, frame: int = 0, limits: FileLimits) -> RasterImage:
    """Decode one frame of a file of format `kind`.

    Raises what `limits` raise, DamagedImageError, ImageFormatError, ImageFrameError, ImageError, or anything that
    Pillow raises on damaged files.
    """
    steps: list[Step] = []
    if kind == "BMP":
        return _bmp(data, frame, limits, steps)
    if kind == "WEBP":
        _check_webp(data, limits)
    data, profile = _mended(data, kind, limits, steps)
    if kind == "TIFF" and (read := _deep_tiff(data, frame, limits, steps)) is not None:
        return read
    data, index, frames = _still(data, frame, limits) if kind == "PNG" else (data, frame, 1)
    with _opened(data, kind, index, limits) as (opened, pages):
        size, colour, deep = opened.size, opened.mode, _deep_raw_mode(opened)
        turned = kind == "TIFF" and opened.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
        # Pillow reads a PNG to its end for the metadata, and turns a TIFF upright with its pixels.
        aspect = pixel_aspect(opened, kind)
        _load(opened, data, kind)
        if profile is not None:
            opened.info["icc_profile"] = profile
        if turned:
            steps.append("orientation")
        if kind == "TIFF" and restore_tags(opened, data, index, turned=turned):
            steps.append("lut_descriptor_corrected")
        image: Image.Image = opened
        if deep is not None and (shades := _sixteen_bits(data, kind, index, opened, deep, limits)) is not None:
            image, deep_steps = shades
            steps += deep_steps
            image.info = {name: value for name, value in opened.info.items() if name in _NEEDED}
            unfit = image.info.pop("icc_profile", None) if "stretch" in deep_steps else None
            if unfit and not is_srgb(unfit):
                steps.append("icc_profile_ignored")
        image = _converted(image, aspect, limits, steps)
    frames = max(frames, pages)
    return RasterImage(image=image, size=size, colour=colour, frame=frame, frames=frames, steps=tuple(steps))


def _still(data: bytes, frame: int, limits: FileLimits) -> tuple[bytes, int, int]:
    """Return a PNG, its frame to show, and the number of frames that the file has; later frames are composed."""
    frames = png_animation.frame_count(data)
    if not frame or frame >= frames:
        return data, frame, frames
    limits.check_size(*struct.unpack_from(">II", data, 16))
    limits.check_frames(frames)
    return png_animation.still(data, frame), 0, frames


def _check_webp(data: bytes, limits: FileLimits) -> None:
    """Check a WebP before Pillow opens it, which allocates its canvas."""
    size = webp.canvas_size(data)
    if size:
        limits.check_size(*size)
    if webp.has_lost_data(data, size):
        raise DamagedImageError("the image is damaged: zeros stand in place of its data")


def _mended(data: bytes, kind: RasterFormat, limits: FileLimits, steps: list[Step]) -> tuple[bytes, bytes | None]:
    """Return a file that Pillow reads, and the colour profile that it would not find."""
    profile: bytes | None = None
    if kind == "PNG":
        profile, ignored = png_colour.colour_profile(data)
        if ignored:
            steps.append("icc_profile_ignored")
        data, damaged = without_metadata(data)
        if damaged:
            steps.append("metadata_dropped")
    if kind == "JPEG" and (coding := jpeg.unusual_coding(data)) is not None:
        raise ImageFormatError(f"{coding} is not read; convert the image to PNG with djpeg or dcmdjpeg (DCMTK)")
    if kind == "JPEG" and not jpeg.has_end(data):
        data = jpeg.with_end(data)
        steps.append("end_marker_added")
    return data, profile


def _load(opened: Image.Image, data: bytes, kind: RasterFormat) -> None:
    """Decode the frame. Raises DamagedImageError when the file holds less or more than its pixels, ImageFormatError."""
    file = opened.fp  # type: ignore[attr-defined]
    opened.load()
    if kind == "WEBP" and webp.has_excess(data, opened):
        raise excess_error()
    if kind == "PNG" and (excess := excess_bytes(data)):
        raise excess_error() if excess > 0 else DamagedImageError("the image is damaged: rows of the PNG are missing")
    if kind == "PNG" and opened.mode == "P" and opened.getextrema()[1] >= palette_size(data):  # type: ignore[operator]
        raise DamagedImageError("the image is damaged: its pixels name colours that its palette lacks")
    if isinstance(file, jpeg.JpegFile):
        if not opened.tell() and file.has_excess():
            raise excess_error()
        # A later image of a multi-picture file begins where Pillow has found it.
        begin = getattr(opened, "offset", 0)
        _require_scans(jpeg.JpegFile(data[begin:]) if begin else file, opened)
        _require_inks(opened)


@contextlib.contextmanager
def _opened(data: bytes, kind: RasterFormat, frame: int, limits: FileLimits) -> Iterator[tuple[Image.Image, int]]:
    """Open a file at `frame`, its size checked, with the number of its frames."""
    if kind == "TIFF":
        frames = len(read_directories(data, most=limits.max_frames + 1))
        with open_page(data, frame) as opened:
            limits.check_size(*opened.size)
            yield opened, frames
        return
    file = jpeg.JpegFile(data) if kind == "JPEG" else io.BytesIO(data)
    with Image.open(file, formats=[kind]) as opened:
        limits.check_size(*opened.size)
        frames = getattr(opened, "n_frames", 1)
        limits.check_frames(frames)
        _require_frame(frame, frames)
        if frame:
            opened.seek(frame)
            limits.check_size(*opened.size)
        yield opened, frames


def _require_frame(frame: int, frames: int) -> None:
    if frame >= frames:
        raise ImageFrameError(f"frames count from 0 and this image has {frames}")


def _require_scans(file: jpeg.JpegFile, opened: Image.Image) -> None:
    # Blocks that are missing are flat: a last block with detail was decoded. Chroma of the blocks beside it may reach
    # into its first row and column.
    left, top = (edge - 1 - (edge - 1) % 8 + ((edge - 1) % 8 > 0) for edge in opened.size)
    corner = np.asarray(opened.crop((left, top, *opened.size)))
    if not file.is_whole(detailed=bool((corner != corner[-1, -1]).any())):
        raise DamagedImageError("the image is damaged or truncated: scan data of the JPEG are missing")


def _require_inks(opened: Image.Image) -> None:
    if opened.mode == "CMYK" and "adobe" not in opened.info:
        raise ImageFormatError(
            "the CMYK JPEG lacks the Adobe marker, without which nothing tells whether its inks are stored inverted; "
            "save the image as RGB"
        )


def _deep_raw_mode(opened: Image.Image) -> str | None:
    """Return Pillow's raw mode of 16-bit samples, of which it keeps the high byte; None for other images."""
    for tile in getattr(opened, "tile", []):
        arguments = tile[3] if len(tile) > 3 else None
        raw = arguments if isinstance(arguments, str) else (arguments or [None])[0]
        if isinstance(raw, str) and raw.startswith(("RGB;16", "RGBA;16", "LA;16")):
            return raw
    return None


def _sixteen_bits(
    data: bytes, kind: RasterFormat, frame: int, high: Image.Image, raw: str, limits: FileLimits
) -> tuple[Image.Image, tuple[Step, ...]] | None:
    """Return 8-bit shades of 16-bit samples and how they came about, None where Pillow's high bytes serve.

    Grey with alpha is stretched as other deep grey is; colours that hold 14 bits or fewer are scaled from those bits.
    A colour key is compared with all 16 bits.
    """
    if raw.startswith("LA"):
        # The four bytes of a pixel.
        bytes_ = _reread(data, kind, frame, "RGBA", limits)
        grey = bytes_[..., 0].astype(np.uint16) << 8 | bytes_[..., 1]
        return stretched(grey.astype(np.float32), bytes_[..., 2], white=65535), ("stretch",)
    upper = np.asarray(high)[..., :3]
    key = high.info.get("transparency")
    few = 8 + int(upper.max()).bit_length() <= 14
    other = {"B": "L", "L": "B", "N": "B"}.get(raw[-1])
    if other is None or not (few or isinstance(key, tuple)):
        return None
    # Read with the other byte order, the file gives the low byte.
    lower = _reread(data, kind, frame, raw[:-1] + other, limits)[..., :3]
    values = upper.astype(np.uint16) << 8 | lower
    shades = np.array(upper)
    if few:
        held = max(int(values.max()).bit_length(), 1)
        shades = np.rint(values * np.float32(255 / (2**held - 1))).astype(np.uint8)
    image = Image.fromarray(shades)
    if isinstance(key, tuple):
        image.putalpha(Image.fromarray(np.where((values == np.array(key)).all(axis=-1), 0, 255).astype(np.uint8)))
    elif high.mode == "RGBA":
        image.putalpha(high.getchannel("A"))
    return image, ("low_bits",) if few else ()


def _reread(data: bytes, kind: RasterFormat, frame: int, raw: str, limits: FileLimits) -> np.ndarray:
    """Return the samples of a frame as Pillow reads them in another raw mode."""
    with _opened(data, kind, frame, limits) as (opened, _):
        opened.tile = [tile._replace(args=_replaced(tile.args, raw)) for tile in opened.tile]  # type: ignore[attr-defined]
        return np.asarray(opened)


def _replaced(arguments: object, raw: str) -> object:
    return raw if isinstance(arguments, str) else (raw, *arguments[1:])  # type: ignore[index]


def _deep_tiff(data: bytes, frame: int, limits: FileLimits, steps: list[Step]) -> RasterImage | None:
    """Return a page with samples that Pillow misreads, None for others; check the limits for both."""
    pages = read_directories(data, most=limits.max_frames + 1)
    limits.check_frames(len(pages))
    _require_frame(frame, len(pages))
    page = pages[frame]
    limits.check_size(*page.size)
    require_layout(page)
    if has_excess(data, page):
        raise excess_error()
    image = deep_image(data, page, steps)
    if image is None:
        return None
    colour = image.mode
    image = _converted(image, pixel_aspect(image, "TIFF"), limits, steps)
    return RasterImage(image=image, size=page.size, colour=colour, frame=frame, frames=len(pages), steps=tuple(steps))


def _bmp(data: bytes, frame: int, limits: FileLimits, steps: list[Step]) -> RasterImage:
    _require_frame(frame, 1)
    image = read_bmp(data, limits, steps)
    size, colour = image.size, image.mode
    image = _converted(image, pixel_aspect(image, "BMP"), limits, steps)
    return RasterImage(image=image, size=size, colour=colour, frame=0, frames=1, steps=tuple(steps))


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
    whitened.info = {name: image.info[name] for name in _NEEDED if name in image.info}
    return whitened
