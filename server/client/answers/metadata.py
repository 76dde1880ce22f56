"""What a service says about itself."""

from medmoe.client.answers.base import Message


class Metadata(Message):
    """What is served, by what: `/v1/metadata`."""

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
    intended_use: str


class ModelInfo(Message):
    id: str
    object: str
    created: int
    """Seconds since 1970."""
    owned_by: str


class ModelList(Message):
    """`/v1/models`."""

    object: str
    data: tuple[ModelInfo, ...]


class Health(Message):
    """`/health/ready`, where it is."""

    status: str
