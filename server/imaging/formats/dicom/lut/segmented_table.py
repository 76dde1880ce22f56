"""Expand segmented palettes (PS3.3 C.7.9.2)."""

import numpy as np
from pydicom.dataset import Dataset

from medmoe.server.errors import UnreadableImage
from medmoe.server.imaging.formats.dicom.attributes import get
from medmoe.server.imaging.formats.dicom.lut.lookup_table import LookupTable, read_descriptor, stored_entries

_DISCRETE, _LINEAR, _INDIRECT = range(3)


def read_segmented_table(dataset: Dataset, *, descriptor: str, data: str, signed: bool) -> LookupTable | None:
    """Return the table whose segments are the attribute `data`, None without it; `signed` as in `read_descriptor`.

    Raises UnreadableImage where the segments cannot be followed, or are too few for the descriptor.
    """
    described, value = read_descriptor(dataset, descriptor, signed=signed), get(dataset, data)
    if described is None or not isinstance(value, bytes):
        return None
    length, first, bits = described
    size = 1 if bits <= 8 else 2
    segments = stored_entries(dataset, data, length=len(value) // size, bits=bits)
    entries = [] if segments is None else _expanded(segments.tolist(), size=size, most=length)
    if len(entries) < length:
        raise _damaged()
    return LookupTable(entries=np.array(entries[:length], np.uint16), first=first, bits=8 * size, repaired=False)


def _expanded(data: list[int], *, size: int, most: int) -> list[int]:
    """Return the entries of segments in numbers of `size` bytes, until they are `most`."""
    entries: list[int] = []
    starts: set[int] = set()
    at = 0
    # A single number at the end is padding.
    while at + 1 < len(data) and len(entries) < most:
        if data[at] != _INDIRECT:
            starts.add(at)
            at = _append(entries, data, at)
            continue
        offset = data[at + 2 : at + 2 + 4 // size]
        source, rest = divmod(sum(number << 8 * size * index for index, number in enumerate(offset)), size)
        for _ in range(data[at + 1]):
            # Only segments of values that came before are copied.
            if rest or source not in starts:
                raise _damaged()
            source = _append(entries, data, source)
            if len(entries) >= most:
                break
        at += 2 + len(offset)
    return entries


def _append(entries: list[int], data: list[int], at: int) -> int:
    """Append the entries of the segment at `at`, discrete or linear, and return where it ends."""
    kind, length = data[at : at + 2]
    values = data[at + 2 : at + 2 + (length if kind == _DISCRETE else 1)]
    if kind == _DISCRETE and length and len(values) == length:
        entries += values
    elif kind == _LINEAR and length and values and entries:
        entries += np.rint(np.linspace(entries[-1], values[0], length + 1)[1:]).astype(int).tolist()
    else:
        raise _damaged()
    return at + 2 + len(values)


def _damaged() -> UnreadableImage:
    return UnreadableImage("the DICOM image's palette is damaged: the segments of its tables cannot be followed")
