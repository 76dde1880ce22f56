"""Represent a decoded image on its way from a decoder process to the engine and the routes."""

import hashlib
from functools import cached_property

import numpy as np
from PIL import Image
from pydantic import Field

from medmoe.server.imaging.decoder_config import Message
from medmoe.server.schemas.images import Rendering, Windowing
from medmoe.server.schemas.inference import DicomUID


class InstanceUIDs(Message):
    """The UIDs that a DICOM file states."""

    study: DicomUID
    series: DicomUID
    instance: DicomUID


class DecodedImage(Message):
    """One decoded image and how it came about."""

    sha256: str
    """SHA-256 hex of the bytes as they were sent or fetched."""
    width: int
    """Width of the frame in the file, in pixels."""
    height: int
    rendering: Rendering
    windowing: Windowing | None = None
    """None where no window can be chosen: for colours, and for formats other than DICOM."""
    uids: InstanceUIDs | None = Field(default=None, repr=False)
    """UIDs of a DICOM file with valid ones, where the deployment has an audit trail."""
    size: tuple[int, int]
    """Width and height of `pixels`."""
    pixels: bytes = Field(default=b"", exclude=True, repr=False)
    """8-bit RGB, row by row. Not part of the JSON: a decoder process sends them after it."""

    @property
    def array(self) -> np.ndarray:
        """Return the pixels as uint8 [height, width, 3], which are not copied."""
        width, height = self.size
        return np.frombuffer(self.pixels, np.uint8).reshape(height, width, 3)

    @property
    def image(self) -> Image.Image:
        """Return a new RGB image, of the model's size or of the size that a view for people asks for."""
        # Image.frombytes would paint it black first.
        image = Image.new("RGB", self.size, color=None)
        image.frombytes(self.pixels)
        return image

    @cached_property
    def image_id(self) -> str:
        """Return the SHA-256 hex digest of size and pixels, which keys the engine's caches.

        Computed from the pixels alone, never read from a decoder process: a broken decoder must not choose another
        image's cache entry.
        """
        return image_id(self.size, self.pixels)


def image_id(size: tuple[int, int], pixels: bytes) -> str:
    """Return the SHA-256 hex of width, height and 8-bit RGB pixels, so that images of different shapes differ."""
    width, height = size
    digest = hashlib.sha256(f"{width}x{height}:".encode())
    digest.update(pixels)
    return digest.hexdigest()
