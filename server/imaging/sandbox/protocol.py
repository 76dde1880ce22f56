"""What the service and its decoding children say to each other: two lengths, JSON, bytes. Nothing is ever unpickled."""

import socket
import struct
from typing import Literal

from pydantic import BaseModel

from medmoe.model.errors import ImageError, MedMoEError
from medmoe.server.errors import (
    BurnedInAnnotation,
    ImageTooCostly,
    ImageTooLarge,
    InvalidField,
    MalformedImage,
    RequestError,
    UnreadableImage,
    UnsupportedImage,
)
from medmoe.server.imaging.config import Message
from medmoe.server.schemas.images import ImageFields, Rendering, View, Windowing

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
        UnreadableImage,
        UnsupportedImage,
    )
}


class Order(Message):
    """To the child; the bytes are what the client sent."""

    text: bool
    """The bytes are base64 text."""
    fields: ImageFields
    view: View


class Done(Message):
    """From the child; the bytes are RGB pixels, row by row."""

    kind: Literal["done"] = "done"
    sha256: str
    width: int
    height: int
    rendering: Rendering
    windowing: Windowing | None
    size: tuple[int, int]
    """Width and height of what the pixels are of."""


class Refused(Message):
    """From the child; no bytes."""

    kind: Literal["refused"] = "refused"
    error: str
    """Name of the class."""
    message: str
    """Ours, not an exception's of a library."""
    param: str | None = None

    @classmethod
    def of(cls, error: RequestError | ImageError) -> "Refused":
        return cls(error=type(error).__name__, message=str(error), param=getattr(error, "param", None))

    def exception(self) -> MedMoEError:
        """What the child raised. Raises KeyError for what it never raises."""
        kind = _ERRORS[self.error]
        return kind(self.message, param=self.param) if issubclass(kind, RequestError) else kind(self.message)


def pack(head: BaseModel, *, size: int) -> bytes:
    """Everything of a message but its `size` bytes."""
    text = head.model_dump_json().encode()
    return LENGTHS.pack(len(text), size) + text


def receive_exactly(connection: socket.socket, size: int) -> bytearray:
    """Blocking. Raises EOFError when the other side ends before `size` bytes."""
    data = bytearray(size)
    view, position = memoryview(data), 0
    while position < size:
        count = connection.recv_into(view[position:])
        if not count:
            raise EOFError
        position += count
    return data
