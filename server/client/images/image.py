"""Whatever a caller calls a picture, as the bytes of a picture file. Of a file its content is sent, never its name."""

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
    from PIL import Image

Source: TypeAlias = Union["Picture", str, os.PathLike[str], bytes, BinaryIO, "np.ndarray[Any, Any]", "Image.Image"]
"""A path (as text too), a data URL, a file's content, an open binary file, an array, or a Pillow picture.

Base64 without `data:` looks like a path: `Picture.from_base64` takes it.
"""

_DATA_URL = re.compile(r"data:[\w.+/-]*;base64,", re.ASCII)
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"BM")
HEAD = 132
"""Bytes that tell what a picture file is."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The content of a picture file: PNG, JPEG, WebP, TIFF, BMP or DICOM."""

    data: bytes = field(repr=False)

    @classmethod
    def of(cls, source: Source) -> "Picture":
        """Raises InvalidInput for what cannot be read or encoded, TypeError for what is none of `Source`."""
        if isinstance(source, Picture):
            return source
        if isinstance(source, bytes | bytearray | memoryview):
            return cls(bytes(source))
        if isinstance(source, str) and source.startswith("data:"):
            return cls.from_base64(source)
        if isinstance(source, str) and source.startswith(("http:", "https:")):
            raise InvalidInput("addresses of pictures are not fetched; give the picture itself")
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
            raise TypeError("a picture is a path, bytes, an open binary file, a data URL, an array or a Pillow picture")
        return cls(data)

    @classmethod
    def from_base64(cls, text: str) -> "Picture":
        """From base64, as a data URL or bare. Raises InvalidInput."""
        prefix = _DATA_URL.match(text)
        try:
            return cls(binascii.a2b_base64(text[prefix.end() :] if prefix else text, strict_mode=True))
        except ValueError as error:
            raise InvalidInput("the picture is not base64 (standard alphabet, padded, without line breaks)") from error


def is_dicom(head: bytes) -> bool:
    """By the first HEAD bytes: DICM behind a preamble that may be anything, another format's beginning too."""
    return head[128:HEAD] == b"DICM"


def is_ordinary(head: bytes) -> bool:
    """Whether it begins as PNG, JPEG, TIFF, BMP or WebP do."""
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "no possible file name"
        raise InvalidInput(f"{path} cannot be read: {reason}") from error


def _is(source: object, module: str, name: str) -> Any:
    """Whether it is an instance of a class whose library, if it is one, its caller has imported."""
    library = sys.modules.get(module)
    return library is not None and isinstance(source, getattr(library, name))
