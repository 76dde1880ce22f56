"""Read an image from any supported source as the bytes of an image file; file names are never sent."""

import binascii
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, Union, cast

from medmoe.client.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

Source: TypeAlias = Union["Image", str, os.PathLike[str], bytes, BinaryIO, "np.ndarray[Any, Any]", "PIL.Image.Image"]
"""A path, a data URL, the bytes of a file, an open binary file, an array, or a Pillow image.

Base64 without `data:` looks like a path: use `Image.from_base64` for it.
"""

_DATA_URL = re.compile(r"data:[\w.+/-]*;base64,", re.ASCII)
DIRECTORY_FILE = "DICOMDIR"
"""Name of the table of contents of DICOM media, which holds no image (PS3.10, 8.6)."""


@dataclass(frozen=True, slots=True)
class Image:
    """Hold the content of an image file: PNG, JPEG, WebP, TIFF, BMP or DICOM."""

    data: bytes = field(repr=False)
    is_chosen_frame: bool = field(default=False, repr=False)
    """Whether it is the frame of a file that a request asks about; the request then names none."""

    @classmethod
    def of(cls, source: Source) -> "Image":
        """Read `source`. Raises InvalidInput if it cannot be read or encoded, TypeError if it is no `Source`."""
        if isinstance(source, Image):
            return source
        if isinstance(source, bytes | bytearray | memoryview):
            return cls(bytes(source))
        if isinstance(source, str) and source.startswith("data:"):
            return cls.from_base64(source)
        if isinstance(source, str) and source.startswith(("http:", "https:")):
            raise InvalidInput("the client fetches no URLs; give the image itself")
        if isinstance(source, str | os.PathLike):
            return cls(_content(Path(source)))
        if _is(source, "numpy", "ndarray"):
            from medmoe.client.images.pixels import png_of_array

            return cls(png_of_array(cast(Any, source)))
        if _is(source, "PIL.Image", "Image"):
            from medmoe.client.images.pixels import png_of_image

            return cls(png_of_image(cast(Any, source)))
        read = getattr(source, "read", None)
        data = read() if callable(read) else None
        if not isinstance(data, bytes):
            raise TypeError("an image is a path, bytes, an open binary file, a data URL, an array or a Pillow image")
        return cls(data)

    @classmethod
    def from_base64(cls, text: str) -> "Image":
        """Decode base64, with or without the prefix of a data URL. Raises InvalidInput."""
        prefix = _DATA_URL.match(text)
        try:
            return cls(binascii.a2b_base64(text[prefix.end() :] if prefix else text, strict_mode=True))
        except ValueError as error:
            raise InvalidInput("the image is not base64 (standard alphabet, padded, without line breaks)") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError as error:
        raise InvalidInput(f"{path} is a folder; `medmoe batch` asks about every image in one") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "no possible file name"
        raise InvalidInput(f"{path} cannot be read: {reason}") from error


def _is(source: object, module: str, name: str) -> Any:
    """Return whether `source` is an instance of a class of a library, without importing the library."""
    library = sys.modules.get(module)
    return library is not None and isinstance(source, getattr(library, name))
