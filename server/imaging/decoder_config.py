"""Configure a decoder process; it is sent the configuration as JSON."""

from pydantic import BaseModel, ConfigDict

from medmoe.model.config import ImageProcessorConfig
from medmoe.server.errors import ImageTooLarge, UnreadableImage
from medmoe.server.schemas.images import BurnedIn

FRAME_SIDE = 1024
"""Longest side, in pixels, of an image that is rendered for people."""


class Message(BaseModel):
    """Base of the records that the service and its decoder processes exchange as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageLimits(Message):
    """Limits that are checked on an image's header, before any pixel is decoded."""

    max_pixels: int
    min_side: int
    max_aspect_ratio: float
    max_frames: int

    def check_size(self, width: int, height: int) -> None:
        """Raise ImageTooLarge, UnreadableImage."""
        # Padding makes a square of the longer side: that, and not the image, is what memory must hold.
        if max(width, height) ** 2 > self.max_pixels:
            raise ImageTooLarge.over(self.max_pixels)
        if min(width, height) < self.min_side:
            raise UnreadableImage(f"the image's shorter side is under {self.min_side} pixels")
        if max(width, height) > self.max_aspect_ratio * min(width, height):
            raise UnreadableImage(f"the image is more than {self.max_aspect_ratio:g} times as long as wide")

    def check_frames(self, frames: int) -> None:
        """Raise ImageTooLarge, UnreadableImage."""
        if frames < 1:
            raise UnreadableImage("the image has no frame")
        if frames > self.max_frames:
            raise ImageTooLarge(f"the image has over {self.max_frames} frames (MEDMOE_MAX_IMAGE_FRAMES)")


class DecoderConfig(Message):
    """The checkpoint's image size and the deployment's limits."""

    processor: ImageProcessorConfig
    size: int
    """Side of the model's image, in pixels."""
    limits: ImageLimits
    burned_in: BurnedIn
    reads_uids: bool = False
    """Whether the answer about a DICOM file has its UIDs."""
    memory_bytes: int
    """Memory for one image beyond what the process holds when it starts."""
    cpu_seconds: float
    wall_seconds: float
