"""Define the responses of the routes for operators: models, metadata, health."""

from typing import Literal

from medmoe.model.files.calibration_binding import Dtype
from medmoe.server.schemas.base import ApiModel


class ModelInfo(ApiModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(ApiModel):
    object: Literal["list"] = "list"
    data: tuple[ModelInfo, ...]


class Metadata(ApiModel):
    """The served checkpoint and the software that serves it."""

    service: str
    """Version of this software."""
    engine: Literal["vllm", "fake"]
    engine_version: str | None
    dtype: Dtype | None
    """Number format that the engine computes in; null when it runs without weights."""
    model: str
    weights_sha256: str | None
    """Null until the weights have been read, or when there are none."""
    adapter_sha256: str | None
    config_sha256: str
    calibrated: tuple[Literal["classification", "answers"], ...]
    """Which probabilities go through the checkpoint's calibration.json."""
    licence: str
    """As the checkpoint states it."""
    expert_domains: tuple[str, ...]
    batches: bool
    """Whether `/v1/files` and `/v1/batches` are offered."""
    intended_use: str


class Health(ApiModel):
    status: str
