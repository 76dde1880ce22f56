"""An image file to the tower's input, with one clear error for everything that a file can be instead of a picture."""

from pathlib import Path

import torch
from PIL import Image

from medmoe.model.errors import ImageError
from medmoe.model.image_processor import ImageProcessor
from medmoe.training.data.errors import DataError


def read_pixels(path: Path, *, processor: ImageProcessor) -> torch.Tensor:
    """float32 [3, size, size]. Raises DataError naming the file when it is not a readable picture."""
    try:
        with Image.open(path) as image:
            return torch.from_numpy(processor(image))
    except (OSError, ValueError, SyntaxError, ImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a picture that can be read") from error
