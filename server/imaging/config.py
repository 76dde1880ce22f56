"""What a decoding child must know, as it travels to it: as JSON, never pickled."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from medmoe.model.config import ImageProcessorConfig

BurnedIn = Literal["refuse", "refuse_unless_clear", "accept"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageLimits(_Frozen):
    """Checked on the header, before any pixel is decoded."""

    max_pixels: int
    min_side: int
    max_aspect_ratio: float
    max_frames: int


class DecoderConfig(_Frozen):
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
