"""Define a decoded frame of an image file, and the limits under which a caller decodes it."""

from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

from medmoe.model.errors import DamagedImageError
from medmoe.model.image_processor import Conversion

Step = (
    Literal[
        "end_marker_added", "high_byte", "invert", "low_bits", "lut_descriptor_corrected", "metadata_dropped",
        "not_a_number", "over_white", "pixel_aspect", "pixel_aspect_ignored", "samples_ignored",
    ]
    | Conversion
)  # fmt: skip
"""What may happen to the samples of a file on their way to 8-bit RGB."""

_METADATA = ("exif", "xmp", "XML:com.adobe.xmp", "icc_profile")


class FileLimits(Protocol):
    """Checks on a file's header, before any pixel is decoded. They raise the caller's own errors."""

    @property
    def max_frames(self) -> int: ...

    def check_size(self, width: int, height: int) -> None: ...

    def check_frames(self, frames: int) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RasterImage:
    """One frame of a file, in 8-bit RGB."""

    image: Image.Image
    size: tuple[int, int]
    """Width and height of the frame in the file."""
    colour: str
    """Pillow's mode of the samples as stored."""
    frame: int
    frames: int
    """Number of frames in the file."""
    steps: tuple[Step, ...]


def keep_metadata(image: Image.Image, source: Image.Image) -> None:
    """Give an image the metadata of its source by which `convert` turns it upright and corrects its colours."""
    image.info = {name: value for name, value in source.info.items() if name in _METADATA}


def excess_error() -> DamagedImageError:
    """Return the error of a file that holds more pixels than its header announces."""
    return DamagedImageError(
        "the image is damaged: the file holds more rows or columns than its header announces; export it anew"
    )
