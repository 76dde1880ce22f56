"""Hash image files by their bytes, and by the pixels that the model would see."""

import hashlib
from pathlib import Path

from medmoe.model.files.digest import file_sha256
from medmoe.training.data.errors import DataError
from medmoe.training.data.image import read_rgb


class ImageDigests:
    """Remember the SHA-256 of files and of their pixels: a VQA set asks about ten questions an image."""

    def __init__(self) -> None:
        self._bytes: dict[Path, str] = {}
        self._pixels: dict[Path, str] = {}

    def of_bytes(self, image: Path) -> str:
        """Return the SHA-256 of the file. Raises DataError when it cannot be read."""
        if image not in self._bytes:
            try:
                self._bytes[image] = file_sha256(image)
            except OSError as error:
                raise DataError(f"{image} cannot be read: {error.strerror}") from error
        return self._bytes[image]

    def of_pixels(self, image: Path) -> str:
        """Return the SHA-256 of size and RGB pixels, which saving again without loss does not change.

        Raises DataError when the file is not an image, or only the beginning of one.
        """
        if image not in self._pixels:
            rgb = read_rgb(image)
            self._pixels[image] = hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()
        return self._pixels[image]
