"""Read look-up tables in every storage that occurs (PS3.3 C.11.1.1, C.7.6.3.1.5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from medmoe.server.imaging.formats.dicom.attributes import get, is_big_endian, words


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupTable:
    """Entries for input values from `first` on; smaller and larger inputs get the first and the last entry."""

    entries: np.ndarray
    """uint16 [entries]."""
    first: int
    bits: int
    """Bits an entry that the data hold, as far as the descriptor's bits are wrong; otherwise the descriptor's."""
    repaired: bool
    """Whether the descriptor and the data disagree."""

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return uint16 entries for integer or float `values` of any shape."""
        index = np.rint(values) if values.dtype.kind == "f" else values.astype(np.int64)
        index = np.clip(index - self.first, 0, len(self.entries) - 1)
        return np.asarray(self.entries[index.astype(np.int32)])


def read_descriptor(dataset: Dataset, keyword: str, *, signed: bool) -> tuple[int, int, int] | None:
    """Return the number of entries, the first mapped value and the bits an entry of a table; None without a table.

    `signed` decides how the first mapped value is read, whatever its representation is.
    """
    described = words(dataset, keyword, signed=False)
    if len(described) != 3:
        return None
    length, first, bits = described
    return length or 2**16, first - 0x10000 if signed and first >= 0x8000 else first, bits


def read_table(dataset: Dataset, *, descriptor: str, data: str, signed: bool) -> LookupTable | None:
    """Return the table of two attributes, None where they hold none; `signed` as in `read_descriptor`."""
    described = read_descriptor(dataset, descriptor, signed=signed)
    if described is None:
        return None
    length, first, bits = described
    entries = stored_entries(dataset, data, length=length, bits=bits)
    if entries is None:
        return None
    held = max(int(entries.max()).bit_length(), 1)
    if bits <= 8 < held and (not (entries & 0xFF).any() or ((entries & 0xFF) == entries >> 8).all()):
        # Eight bits in the high byte of each word, or in both.
        entries, held = entries >> 8, 8
    return LookupTable(
        entries=entries[:length],
        first=first,
        bits=_bits(bits, held),
        repaired=len(entries) < length or _bits(bits, held) != bits,
    )


def stored_entries(dataset: Dataset, keyword: str, *, length: int, bits: int) -> np.ndarray | None:
    """Return uint16 numbers of a table's data, about `length` of them; None without data."""
    value = get(dataset, keyword)
    if isinstance(value, bytes):
        even = length + length % 2
        packed = len(value) <= even and (bits <= 8 or len(value) in (length, even)) and length > 1
        if packed:
            found = np.frombuffer(value, np.uint8)
            # In a word of two entries the low byte comes first, which big endian stores last.
            if is_big_endian(dataset) and dataset[keyword].VR == "OW" and len(found) % 2 == 0:
                found = found.reshape(-1, 2)[:, ::-1].ravel()
        else:
            found = np.frombuffer(value[: len(value) // 2 * 2], ">u2" if is_big_endian(dataset) else "<u2")
    elif isinstance(value, int):
        found = np.array([value & 0xFFFF])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        found = np.asarray([int(item) & 0xFFFF for item in value], np.uint16)
        if bits <= 8 and len(found) < length <= 2 * len(found):
            found = np.stack([found & 0xFF, found >> 8], axis=-1).ravel()
    else:
        return None
    return found.astype(np.uint16) if found.size else None


def _bits(described: int, held: int) -> int:
    """Return the bits an entry: the descriptor's, unless the data exceed them or leave two or more of them empty."""
    held = max(held, 8)
    if not 8 <= described <= 16 or held > described or held <= described - 2:
        return held
    return described
