"""Define the answers that describe the service."""

from medmoe.client.answers.base import Message


class Metadata(Message):
    """Describe the served checkpoint and its engine: `/v1/metadata`."""

    service: str
    engine: str
    engine_version: str | None
    dtype: str | None
    model: str
    weights_sha256: str | None
    adapter_sha256: str | None
    config_sha256: str
    calibrated: tuple[str, ...]
    licence: str
    expert_domains: tuple[str, ...]
    batches: bool = False
    intended_use: str


class ModelInfo(Message):
    id: str
    object: str
    created: int
    """Unix time in seconds."""
    owned_by: str


class ModelList(Message):
    """List the served models, the active one first: `/v1/models`."""

    object: str
    data: tuple[ModelInfo, ...]


class Health(Message):
    """State of a service that is ready: `/health/ready`."""

    status: str
