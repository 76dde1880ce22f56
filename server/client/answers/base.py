"""Define the base class of the service's answers."""

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """Base of every answer: immutable, and it keeps fields that a newer service adds."""

    model_config = ConfigDict(frozen=True, extra="allow")
