"""Read an image file to the tower's input or to plain pixels, by the service's own decoder."""

from pathlib import Path
from typing import get_args

import torch
from PIL import Image

from medmoe.model.errors import ImageError
from medmoe.model.image_formats.raster import read_raster
from medmoe.model.image_formats.signature import RasterFormat, is_dicom, raster_format
from medmoe.model.image_processor import ImageProcessor
from medmoe.training.data.errors import DataError


class _TrainingLimits:
    """Pillow's limit of pixels."""

    max_frames = 2**16

    def check_size(self, width: int, height: int) -> None:
        """Raise ImageError. As in the service, an image counts as the square that padding makes of it."""
        if Image.MAX_IMAGE_PIXELS is not None and max(width, height) ** 2 > 2 * Image.MAX_IMAGE_PIXELS:
            raise _too_large()

    def check_frames(self, frames: int) -> None:
        """Raise ImageError."""
        if not 1 <= frames <= self.max_frames:
            raise ImageError(f"the image has no frame, or over {self.max_frames}")


def _too_large() -> ImageError:
    return ImageError(f"the image, padded to a square, has over {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels")


def read_pixels(path: Path, *, processor: ImageProcessor) -> torch.Tensor:
    """Return float32 [3, size, size]. Raises DataError naming the file when it is not a readable image."""
    return torch.from_numpy(processor(read_rgb(path)))


def read_rgb(path: Path) -> Image.Image:
    """Return 8-bit RGB in the file's own size, as the processor sees it before resizing. Raises DataError likewise."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if is_dicom(data):
        raise DataError(f"{path} is DICOM, which `medmoe render` writes as PNG for training")
    try:
        kind = raster_format(data)
        if kind is None:
            # Pillow reads others, which the service refuses.
            raise ImageError(f"it is none of {', '.join(get_args(RasterFormat))}; convert other images to PNG")
        return read_raster(data, kind, limits=_TrainingLimits()).image
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is not an image that can be read: {_too_large()}") from error
    except ImageError as error:
        raise DataError(f"{path} is not an image that can be read: {error}") from error
    except Exception as error:
        # Pillow's plugins raise anything from SyntaxError to struct.error on damaged files.
        raise DataError(f"{path} is not an image that can be read") from error
