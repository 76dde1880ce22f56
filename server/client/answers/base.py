"""What every answer of the service has in common, seen from its client."""

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """Immutable. Fields that a newer service adds are kept, and stand in what is dumped."""

    model_config = ConfigDict(frozen=True, extra="allow")
