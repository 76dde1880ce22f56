"""From a decoded picture to the tower's pixels: the only image preprocessing in the repository.

Pillow and numpy alone, so that the server's process runs exactly what training ran. Source of the two modes:
Med-MoE trains with `expand2square` (pad) and evaluates with CLIP's centre crop; both are kept, stored in config.json.
"""

import contextlib

import numpy as np
from PIL import Image, ImageOps

from medmoe.model.config import ImageProcessorConfig, MedMoEConfig
from medmoe.model.errors import ImageError

_GREY_16 = ("I;16", "I;16B", "I;16L", "I", "F")


def to_rgb(image: Image.Image) -> Image.Image:
    """Bring any supported Pillow mode to 8-bit RGB, turned upright by its EXIF orientation.

    More than 8 bits a channel are stretched linearly from the image's own minimum and maximum; transparency is
    laid over black. Raises ImageError for an image without area.
    """
    if not image.width or not image.height:
        raise ImageError("the image has no pixels")
    # Damaged metadata raise anything; they say nothing against the pixels.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode in _GREY_16:
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ImageError("the image holds values that are not numbers")
        low, high = values.min(), values.max()
        scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
        image = Image.fromarray(np.rint(scaled).astype(np.uint8))
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
    return image.convert("RGB")


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
        """RGB picture of the model's size. A picture that already has it comes back unchanged."""
        image = to_rgb(image)
        if image.size == (self.size, self.size):
            return image
        if self.config.mode == "pad":
            side = max(image.size)
            square = Image.new("RGB", (side, side), self.config.background)
            square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            return square.resize((self.size, self.size), Image.Resampling.BICUBIC)
        scale = self.size / min(image.size)
        wide, high = (max(self.size, int(edge * scale)) for edge in image.size)
        image = image.resize((wide, high), Image.Resampling.BICUBIC)
        left, top = (wide - self.size) // 2, (high - self.size) // 2
        return image.crop((left, top, left + self.size, top + self.size))

    def __call__(self, image: Image.Image) -> np.ndarray:
        """float32 [3, size, size], channel-normalised. Raises ImageError as `to_rgb` does."""
        pixels = np.asarray(self.resize(image), dtype=np.float32).transpose(2, 0, 1)
        normalised: np.ndarray = (pixels / 255.0 - self._mean) / self._std
        return normalised
