"""Define the messages between the service and its decoder processes: two lengths, JSON, bytes.

Nothing is ever unpickled.
"""

import socket
import struct
from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeInt, TypeAdapter

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
from medmoe.server.imaging.decoder_config import Message
from medmoe.server.imaging.reports.content import ReportContent, ReportFormat
from medmoe.server.imaging.series.errors import InvalidArchive, NotAVolume, SeriesTooLarge
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
        InvalidArchive,
        InvalidField,
        MalformedImage,
        NotAVolume,
        SeriesTooLarge,
        UniformImage,
        UnreadableImage,
        UnsupportedImage,
    )
}


class _FileRequest(Message):
    """Base of the requests to a worker; the bytes that follow are what the client sent."""

    text: bool
    """Whether the bytes are base64 text."""


class DecodeRequest(_FileRequest):
    """Asks for the image; DecodedImage and its pixels are the answer."""

    do: Literal["decode"] = "decode"
    fields: ImageFields
    view: View


class IdentifyRequest(_FileRequest):
    """Asks for the UIDs of a DICOM file; Document and InstanceUIDs as JSON are the answer."""

    do: Literal["identify"] = "identify"


class ReportRequest(_FileRequest):
    """Asks for the report on an image of a DICOM file; Document and the report are the answer."""

    do: Literal["report"] = "report"
    content: ReportContent
    format: ReportFormat


class SurveyRequest(_FileRequest):
    """Asks where the slices of a DICOM file lie; Document and Survey as JSON are the answer."""

    do: Literal["survey"] = "survey"
    metadata: bool = False
    """Whether the bytes are a source's metadata of a series, DICOM JSON, instead of a file."""
    max_slices: int


class UnpackRequest(_FileRequest):
    """Asks for the files in a ZIP archive; Unpacked and the files, one after another, are the answer."""

    do: Literal["unpack"] = "unpack"
    max_files: int
    max_bytes: int


WorkerRequest = DecodeRequest | IdentifyRequest | ReportRequest | SurveyRequest | UnpackRequest
AnyRequest: TypeAdapter[WorkerRequest] = TypeAdapter(Annotated[WorkerRequest, Field(discriminator="do")])


class Document(Message):
    """Announces a document that a worker made of a file; its bytes follow."""


class Unpacked(Message):
    """Announces the files of an archive."""

    sizes: tuple[NonNegativeInt, ...]
    """Bytes of each file."""


class Refusal(Message):
    """Tells why a worker refuses a file; no bytes follow."""

    error: str
    """Name of the error's class."""
    message: str
    """The error's own message, never one of an image library."""
    param: str | None = None

    @property
    def is_costly(self) -> bool:
        """Return whether the file took all memory, which may leave the worker damaged."""
        return self.error == ImageTooCostly.__name__

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
