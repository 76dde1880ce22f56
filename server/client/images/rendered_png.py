"""Tell of which image and with which options a PNG was rendered, by digests in a text chunk of it."""

import hashlib
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

from medmoe.client.images.image import Image
from medmoe.model.image_formats.png.chunks import join_chunks, new_chunk, split_chunks

_TEXT, _KEYWORD = b"tEXt", b"medmoe-render\0"
_HEAD = 256
"""Bytes of a PNG that hold its header and the mark behind it."""


class RenderMark(NamedTuple):
    """Digests of the image and of the options."""

    image: str
    options: str

    @classmethod
    def of(cls, image: Image, options: Mapping[str, object]) -> Self:
        """Return the mark of an image that is rendered with `options`, which JSON can hold."""
        told = json.dumps(options, sort_keys=True).encode()
        return cls(hashlib.sha256(image.data).hexdigest(), hashlib.sha256(told).hexdigest())

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the mark of a PNG, None where there is no file or it has none. Raises OSError."""
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD)
        except FileNotFoundError:
            return None
        for chunk in islice(split_chunks(head), 1, 2):
            digests = chunk.data.removeprefix(_KEYWORD).decode("latin-1").split(" ")
            if chunk.data.startswith(_KEYWORD) and len(digests) == 2:
                return cls(*digests)
        return None

    def put(self, png: bytes) -> bytes:
        """Return the PNG with this mark."""
        header, *others = split_chunks(png)
        return join_chunks((header, new_chunk(_TEXT, _KEYWORD + " ".join(self).encode()), *others))
