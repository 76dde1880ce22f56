"""What a decoding child must know, as it travels to it: as JSON, never pickled."""

from pydantic import BaseModel, ConfigDict

from medmoe.model.config import ImageProcessorConfig
from medmoe.server.schemas.images import BurnedIn

FRAME_SIDE = 1024
"""Longest side of a picture that is rendered for people, in pixels: what a page has room for."""


class Message(BaseModel):
    """What crosses the line between the service and its children."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageLimits(Message):
    """Checked on the header, before any pixel is decoded."""

    max_pixels: int
    min_side: int
    max_aspect_ratio: float
    max_frames: int


class DecoderConfig(Message):
    """One deployment's checkpoint and limits, as the children see them."""

    processor: ImageProcessorConfig
    size: int
    """Side of the model's picture, in pixels."""
    limits: ImageLimits
    burned_in: BurnedIn
    memory_bytes: int
    """What one picture may take beyond what the child holds when it starts."""
    cpu_seconds: float
    wall_seconds: float
