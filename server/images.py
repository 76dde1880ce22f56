"""The picture of one request as the routes and the engine see it, and as people do.

Apart from medmoe.server.imaging, which makes it in a child process.
"""

import hashlib
from dataclasses import dataclass, field

from PIL import Image

from medmoe.server.picture_schemas import Rendering, Windowing


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A decoded picture and where it came from."""

    image: Image.Image
    """RGB, of the model's size."""
    image_id: str = field(init=False)
    """SHA-256 hex of size and pixels of `image`. The size is in it so that pictures of other shapes never collide.
    Made here and not by the child: who can break a decoder must not choose whose cached picture he gets."""
    sha256: str
    """SHA-256 hex of the bytes as they were sent or fetched."""
    width: int
    height: int
    rendering: Rendering

    def __post_init__(self) -> None:
        identity = hashlib.sha256(f"{self.image.width}x{self.image.height}:".encode())
        identity.update(self.image.tobytes())
        object.__setattr__(self, "image_id", identity.hexdigest())


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedPicture:
    """A decoded picture for people to look at."""

    image: Image.Image
    """RGB."""
    width: int
    height: int
    rendering: Rendering
    windowing: Windowing | None
