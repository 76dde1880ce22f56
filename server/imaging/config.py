"""Configuration of a decoder process, sent to it as JSON."""

from pydantic import BaseModel, ConfigDict

from medmoe.model.config import ImageProcessorConfig
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


class DecoderConfig(Message):
    """The checkpoint's image size and the deployment's limits."""

    processor: ImageProcessorConfig
    size: int
    """Side of the model's image, in pixels."""
    limits: ImageLimits
    burned_in: BurnedIn
    memory_bytes: int
    """Memory for one image beyond what the process holds when it starts."""
    cpu_seconds: float
    wall_seconds: float
