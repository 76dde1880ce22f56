"""Read an image file to the tower's input or to plain pixels."""

from pathlib import Path

import torch
from PIL import Image

from medmoe.model.errors import ImageError
from medmoe.model.image_processor import ImageProcessor, to_rgb
from medmoe.training.data.errors import DataError

_UNREADABLE = (OSError, ValueError, SyntaxError, ImageError, Image.DecompressionBombError)


def read_pixels(path: Path, *, processor: ImageProcessor) -> torch.Tensor:
    """Return float32 [3, size, size]. Raises DataError naming the file when it is not a readable image."""
    try:
        with Image.open(path) as image:
            return torch.from_numpy(processor(image))
    except _UNREADABLE as error:
        raise DataError(f"{path} is not an image that can be read") from error


def read_rgb(path: Path) -> Image.Image:
    """Return 8-bit RGB in the file's own size, as the processor sees it before resizing. Raises DataError likewise."""
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except _UNREADABLE as error:
        raise DataError(f"{path} is not an image that can be read") from error
