"""Define the fields and objects that the inference routes share."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.images import Rendering

Dtype = Literal["float32", "bfloat16", "float16"]
Modality = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Question = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
ImageText = Annotated[
    str,
    Field(
        description="The image as base64 or as a base64 data URL: PNG, JPEG, WebP, TIFF, BMP, DICOM; where the "
        "deployment names hosts (MEDMOE_IMAGE_URL_HOSTS), its https URL."
    ),
]


class Timings(ApiModel):
    """Seconds."""

    fetch: float
    """Of the image by its URL or from its source; 0 when it was sent."""
    image: float
    queue: float
    engine: float
    total: float


class Provenance(ApiModel):
    """What is needed to reproduce the answer."""

    image_sha256: str
    """Of the bytes as they were sent or fetched."""
    width: int
    height: int
    rendering: Rendering
    mode: Literal["pad", "crop"]
    resized_to: tuple[int, int]
    weights_sha256: str | None
    """SHA-256 of model.safetensors, or of the lines of `sha256sum` for its index and shards; null when the engine runs
    without weights."""
    adapter_sha256: str | None
    """Of adapter_model.safetensors; null when the checkpoint has no adapters."""
    dtype: Dtype | None
    """Number format that the engine computed in; null when the engine runs without weights."""


class LayerRouting(ApiModel):
    """Tokens of this request by expert index, in one MoE layer."""

    layer: int
    image: tuple[int, ...]
    question: tuple[int, ...]
    """Every prompt token that is not the image's, the template's words included."""
    answer: tuple[int, ...]


class Routing(ApiModel):
    expert_domains: tuple[str, ...]
    layers: tuple[LayerRouting, ...]
