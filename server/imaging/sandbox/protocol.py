"""Define the messages between the service and its decoder processes: two lengths, JSON, bytes.

Nothing is ever unpickled.
"""

import socket
import struct

from pydantic import BaseModel

from medmoe.model.errors import ImageError, MedMoEError
from medmoe.server.errors import (
    BurnedInAnnotation,
    ImageTooCostly,
    ImageTooLarge,
    InvalidField,
    MalformedImage,
    RequestError,
    UniformImage,
    UnreadableImage,
    UnsupportedImage,
)
from medmoe.server.imaging.config import Message
from medmoe.server.schemas.images import ImageFields, View

LENGTHS = struct.Struct("!IQ")
MAX_HEAD = 64 * 1024
_ERRORS: dict[str, type[MedMoEError]] = {
    kind.__name__: kind
    for kind in (
        BurnedInAnnotation,
        ImageError,
        ImageTooCostly,
        ImageTooLarge,
        InvalidField,
        MalformedImage,
        UniformImage,
        UnreadableImage,
        UnsupportedImage,
    )
}


class DecodeRequest(Message):
    """Asks a worker for one image; the bytes that follow are what the client sent."""

    text: bool
    """Whether the bytes are base64 text."""
    fields: ImageFields
    view: View


class Refusal(Message):
    """Tells why a worker decoded no image; no bytes follow."""

    error: str
    """Name of the error's class."""
    message: str
    """The error's own message, never one of an image library."""
    param: str | None = None

    @classmethod
    def of(cls, error: RequestError | ImageError) -> "Refusal":
        return cls(error=type(error).__name__, message=str(error), param=getattr(error, "param", None))

    def exception(self) -> MedMoEError:
        """Return the error that the worker raised. Raises KeyError for a class that it never raises."""
        kind = _ERRORS[self.error]
        return kind(self.message, param=self.param) if issubclass(kind, RequestError) else kind(self.message)


def pack(head: BaseModel, *, size: int) -> bytes:
    """Return a message without its `size` trailing bytes."""
    text = head.model_dump_json().encode()
    return LENGTHS.pack(len(text), size) + text


def receive_exactly(connection: socket.socket, size: int) -> bytearray:
    """Receive `size` bytes; blocks. Raises EOFError when the other side ends earlier."""
    data = bytearray(size)
    view, position = memoryview(data), 0
    while position < size:
        count = connection.recv_into(view[position:])
        if not count:
            raise EOFError
        position += count
    return data
