"""Blank the metadata of compressed DICOM frames, in encapsulated pixel data (PS3.5 A.4)."""

import struct

from medmoe.client.errors import InvalidInput
from medmoe.client.images.code_stream import Span, without_metadata
from medmoe.model.image_formats.signature import JP2, JPEG, JPEG_2000

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


def frames_without_metadata(value: bytes) -> bytes:
    """Return encapsulated JPEG, JPEG-LS or JPEG 2000 frames without metadata; fragments and offsets stay.

    Raises InvalidInput for other frames, and for damaged ones.
    """
    found = bytearray(value)
    for frame in _frames(value):
        stream = without_metadata(b"".join(value[begin:end] for begin, end in frame))
        at = 0
        for begin, end in frame:
            found[begin:end] = stream[at : at + end - begin]
            at += end - begin
    return bytes(found)


def _frames(value: bytes) -> list[list[Span]]:
    """Return the fragments of each code stream; a stream begins where a fragment begins as one."""
    _, *fragments = _items(value)
    frames: list[list[Span]] = []
    for begin, end in fragments:
        if not frames or value.startswith((JPEG, JPEG_2000, JP2), begin, end):
            frames.append([])
        frames[-1].append((begin, end))
    return frames


def _items(value: bytes) -> list[Span]:
    """Return where the content of each item lies, that of the offset table first."""
    items, at = list[Span](), 0
    while value.startswith(_ITEM, at) and at + 8 <= len(value):
        (length,) = struct.unpack_from("<I", value, at + 4)
        items.append((at + 8, min(at + 8 + length, len(value))))
        at += 8 + length
    if not items or value[at:].removeprefix(_DELIMITER).strip(b"\0"):
        raise InvalidInput("the DICOM file is damaged: its compressed frames cannot be told apart")
    return items
