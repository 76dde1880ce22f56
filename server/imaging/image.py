"""The picture of one request as the routes and the engine see it, and as people do.

Apart from medmoe.server.imaging, which makes it in a child process.
"""

import hashlib
from dataclasses import dataclass

from PIL import Image

from medmoe.server.schemas.images import Rendering, Windowing


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A decoded picture and where it came from."""

    image: Image.Image
    """RGB, of the model's size."""
    image_id: str
    """Of `image`, as `identify` gives it."""
    sha256: str
    """SHA-256 hex of the bytes as they were sent or fetched."""
    width: int
    height: int
    rendering: Rendering


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedPicture:
    """A decoded picture for people to look at."""

    image: Image.Image
    """RGB."""
    width: int
    height: int
    rendering: Rendering
    windowing: Windowing | None


def identify(size: tuple[int, int], pixels: bytearray) -> str:
    """SHA-256 hex of a picture's size and pixels. The size is in it so that pictures of other shapes never collide.

    For the service and not for the child: who can break a decoder must not choose whose cached picture he gets.
    """
    width, height = size
    identity = hashlib.sha256(f"{width}x{height}:".encode())
    identity.update(pixels)
    return identity.hexdigest()
