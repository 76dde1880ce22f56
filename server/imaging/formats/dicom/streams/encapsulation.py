"""Split encapsulated pixel data into frames, whatever its offset tables say (PS3.5 A.4)."""

import struct

from medmoe.model.image_formats.signature import JP2, JPEG, JPEG_2000
from medmoe.server.errors import UnreadableImage

ITEM, SEQUENCE_DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
END = SEQUENCE_DELIMITER + bytes(4)


def split_frames(value: bytes, *, declared: int | None) -> list[bytes]:
    """Return the frames of a Pixel Data value, `declared` of them unless the header names no number.

    Raises UnreadableImage where the fragments are truncated, or are fewer frames than declared.
    """
    table, fragments = _fragments(value)
    if not fragments:
        raise UnreadableImage("the DICOM file holds no pixel data: its encapsulated frames are empty")
    starts = [index for index, (_, data) in enumerate(fragments) if index == 0 or _begins(data)]
    if declared is None:
        groups = starts
    elif declared == 1:
        # A second stream after the first is a frame of its own.
        groups = starts if len(starts) > 1 and starts == list(range(len(fragments))) else [0]
    elif (by_table := _by_table(table, fragments, declared)) is not None and _are_starts(by_table, starts):
        groups = by_table
    elif len(fragments) == declared and _are_starts(list(range(declared)), starts):
        groups = list(range(declared))
    else:
        groups = starts
    if declared is not None and len(groups) < declared:
        raise UnreadableImage(
            f"the DICOM header declares {declared} frames and the file holds {len(groups)}: it is truncated, or "
            "NumberOfFrames is wrong"
        )
    ends = [*groups[1:], len(fragments)]
    return [b"".join(data for _, data in fragments[a:b]) for a, b in zip(groups, ends, strict=True)]


def _fragments(value: bytes) -> tuple[list[int], list[tuple[int, bytes]]]:
    """Return the basic offset table, and each fragment with its offset as the table counts."""
    if value[:4] != ITEM:
        raise UnreadableImage("the DICOM pixel data are not encapsulated as the transfer syntax says")
    position, items = 0, []
    while position + 8 <= len(value) and value[position : position + 4] == ITEM:
        (length,) = struct.unpack_from("<I", value, position + 4)
        if position + 8 + length > len(value):
            raise UnreadableImage("the image is damaged or truncated: its last fragment is not whole")
        items.append((position, value[position + 8 : position + 8 + length]))
        position += 8 + length
    _, table = items[0]
    base = 8 + len(table)
    offsets = list(struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4]))
    return offsets, [(at - base, data) for at, data in items[1:] if data]


def _by_table(table: list[int], fragments: list[tuple[int, bytes]], declared: int) -> list[int] | None:
    """Return the index of each frame's first fragment, None where the table does not fit the fragments."""
    places = {at: index for index, (at, _) in enumerate(fragments)}
    if len(table) != declared or table != sorted(set(table)) or not all(at in places for at in table):
        return None
    groups = [places[at] for at in table]
    return groups if groups[0] == 0 else None


def _are_starts(groups: list[int], starts: list[int]) -> bool:
    """Return whether streams begin at these fragments; True where none is known to, as of deflated frames."""
    return len(starts) == 1 or set(groups) <= set(starts)


def _begins(fragment: bytes) -> bool:
    """Return whether a fragment begins a JPEG, JPEG-LS, JPEG 2000 or run-length stream."""
    if fragment.startswith((JPEG, JPEG_2000, JP2)):
        return True
    if len(fragment) < 64:
        return False
    segments, first = struct.unpack_from("<II", fragment)
    return bool(1 <= segments <= 15 and first == 64)
