"""Store arrays of pixels as image files, so that every sample's image is a path."""

import hashlib
import os
from pathlib import Path

import numpy as np
from PIL import Image

from medmoe.training.data.errors import DatasetError


class ImageStore:
    """Store PNGs in a folder by their content: `ab/abcd....png`, SHA-256 over shape and pixels.

    Writing is idempotent: what is there is not written again, equal arrays share a file (and so features and leak
    checks meet by themselves), and an interrupted or concurrent run never leaves half an image under a name.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()

    def add(self, pixels: np.ndarray) -> Path:
        """Return the absolute path of the PNG that holds `pixels`, uint8 [height, width] or [height, width, 3].

        Raises DatasetError when the folder cannot be written.
        """
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        path = self.directory / digest[:2] / f"{digest}.png"
        if not path.exists():
            # A name of its own for each process: ranks of a distributed run write the same images.
            staging = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(staging, format="PNG")
                os.replace(staging, path)
            except OSError as error:
                raise DatasetError(
                    f"images cannot be written to {self.directory}: {error.strerror}; name another folder for them"
                ) from error
        return path
