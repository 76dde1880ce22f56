"""Convert a decoded image to the tower's pixels, in training and in serving.

Pillow and numpy alone, so that the server's process runs exactly what training ran. Source of the two modes:
Med-MoE trains with `expand2square` (pad) and evaluates with CLIP's centre crop; both are kept, stored in config.json.
"""

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from medmoe.model.colour_profile import is_srgb, to_srgb
from medmoe.model.config import ImageProcessorConfig, MedMoEConfig
from medmoe.model.errors import ImageError

_GREY_16 = ("I;16", "I;16B", "I;16L", "I", "F")


Conversion = Literal["orientation", "stretch", "over_black", "icc_profile", "icc_profile_ignored"]
"""What may happen to an image on its way to 8-bit RGB: turned upright, stretched to 8 bits, laid over black, brought
to sRGB from its ICC profile, or not, because the profile cannot be used."""


def convert(image: Image.Image) -> tuple[Image.Image, tuple[Conversion, ...]]:
    """Bring any supported Pillow mode to 8-bit RGB, turned upright by its EXIF orientation; says what that took.

    More than 8 bits of grey are stretched linearly from the image's own minimum and maximum; transparency is laid
    over black. Colours and 8-bit grey with an ICC profile other than sRGB are brought to sRGB; CMYK without one,
    palettes and the rest are Pillow's own conversion. Raises ImageError for an image without area or with values that
    are not numbers.
    """
    if not image.width or not image.height:
        raise ImageError("the image has no pixels")
    done: list[Conversion] = []
    # Damaged metadata raise anything; they say nothing against the pixels.
    with contextlib.suppress(Exception):
        # First, because Pillow would copy an upright image, and it may be large.
        if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
            image = ImageOps.exif_transpose(image)
            done.append("orientation")
    profile = image.info.get("icc_profile")
    if image.mode in _GREY_16:
        key = image.info.get("transparency")
        values = np.array(image, dtype=np.float64)
        transparent = values == key if isinstance(key, int) else np.zeros((), bool)
        image = _stretch(values, transparent=transparent)
        done.append("stretch")
        if transparent.any():
            done.append("over_black")
    if isinstance(profile, bytes) and profile and image.mode != "1" and not is_srgb(profile):
        # Shades that were stretched from measured values are no colours of the profile.
        converted = None if "stretch" in done else to_srgb(image, profile)
        done.append("icc_profile" if converted else "icc_profile_ignored")
        image = converted or image
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
        done.append("over_black")
    image = image.convert("RGB")
    # Another conversion would apply the profile to what were grey shades.
    image.info = {}
    return image, tuple(done)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image of `convert` without its steps."""
    return convert(image)[0]


def _stretch(values: np.ndarray, *, transparent: np.ndarray) -> Image.Image:
    """Return 8-bit grey from `values`, which are overwritten; what is transparent becomes black."""
    if not np.isfinite(values).all():
        raise ImageError("the image holds values that are not numbers")
    if transparent.any() and not transparent.all():
        values[transparent] = values[~transparent].min()
    low, high = values.min(), values.max()
    # In place: an image may be large, and the server's processes have little memory.
    values -= low
    values *= 255.0 / (high - low) if high > low else 0.0
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))


def normalise(pixels: Any, *, mean: Any, std: Any) -> None:
    """Compute (pixels / 255 - mean) / std in place: float32 `pixels` [..., 3, height, width]; `mean`, `std` [3, 1, 1].

    In operators alone, so that numpy in training and torch in the engine's process compute the same numbers.
    """
    pixels /= 255.0
    pixels -= mean
    pixels /= std


Corners = tuple[float, float, float, float]
"""Left, top, right and bottom."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where `ImageProcessor.fit` puts an image."""

    content: tuple[int, int, int, int]
    """Left, top, right and bottom of the model's pixels that show the image; what is beside them is padding."""
    seen: Corners
    """The part of the image that they show, in fractions of its width and height."""


class ImageProcessor:
    """Pads or crops, resizes (bicubic), rescales and normalises; sizes and colours come from the checkpoint."""

    def __init__(self, config: ImageProcessorConfig, *, size: int) -> None:
        self.config = config
        self.size = size
        self._mean = np.asarray(config.mean, dtype=np.float32)[:, None, None]
        self._std = np.asarray(config.std, dtype=np.float32)[:, None, None]

    @classmethod
    def from_config(cls, config: MedMoEConfig) -> "ImageProcessor":
        return cls(config.image_processor, size=config.vision_config.image_size)

    def resize(self, image: Image.Image) -> Image.Image:
        """Return an RGB image of the model's size. An image that already has it comes back unchanged."""
        return self.fit(to_rgb(image))

    def fit(self, image: Image.Image) -> Image.Image:
        """Resize what `convert` has returned, as `resize` does."""
        if image.size == (self.size, self.size):
            return image
        if self.config.mode == "pad":
            return self._square(image).resize((self.size, self.size), Image.Resampling.BICUBIC)
        wide, high, left, top = self._crop(image.size)
        image = image.resize((wide, high), Image.Resampling.BICUBIC)
        return image.crop((left, top, left + self.size, top + self.size))

    def placement(self, size: tuple[int, int]) -> Placement:
        """Return where `fit` puts an image of this width and height."""
        if self.config.mode == "crop":
            wide, high, left, top = self._crop(size)
            seen = (left / wide, top / high, (left + self.size) / wide, (top + self.size) / high)
            return Placement(content=(0, 0, self.size, self.size), seen=seen)
        side = max(size)
        edges = []
        for length in size:
            before = (side - length) // 2
            # At least one pixel of the thinnest image.
            first = min(round(before / side * self.size), self.size - 1)
            edges.append((first, max(first + 1, round((before + length) / side * self.size))))
        (left, right), (top, bottom) = edges
        return Placement(content=(left, top, right, bottom), seen=(0.0, 0.0, 1.0, 1.0))

    def _crop(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the width and height to resize an image of `size` to, and the left and top edge of the crop."""
        # In whole numbers: a scale of floating point makes some images a pixel narrower than CLIP's processor does.
        wide, high = (edge * self.size // min(size) for edge in size)
        return wide, high, (wide - self.size) // 2, (high - self.size) // 2

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Return uint8 pixels [3, size, size], not yet normalised. Raises ImageError as `to_rgb` does."""
        return np.asarray(self.resize(image)).transpose(2, 0, 1)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return float32 pixels [3, size, size], normalised by channel. Raises ImageError as `to_rgb` does."""
        # Channels first in memory too, where a channel's numbers meet long rows: several times as fast.
        pixels: np.ndarray = self.pixels(image).astype(np.float32, order="C")
        normalise(pixels, mean=self._mean, std=self._std)
        return pixels

    def _square(self, image: Image.Image) -> Image.Image:
        if image.width == image.height:
            return image
        side = max(image.size)
        square = Image.new("RGB", (side, side), self.config.background)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square
