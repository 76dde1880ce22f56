"""Blank the overlays that lie in bits of the pixels which no value uses (PS3.3 C.9.2, retired)."""

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian

from medmoe.client.errors import InvalidInput

_GROUPS = range(0x6000, 0x6020, 2)
_BIT_POSITION, _DATA = 0x0102, 0x3000


def pixels_without_overlays(dataset: Dataset, value: bytes, *, syntax: UID) -> bytes:
    """Return the Pixel Data `value` of a dataset, without such overlays.

    Raises InvalidInput where the pixels are compressed, with an overlay in them.
    """
    bits = _overlay_bits(dataset)
    if not bits:
        return value
    if syntax.is_encapsulated:
        raise InvalidInput(
            "the file holds an overlay in unused bits of its compressed pixels, which cannot be removed; export it as "
            "uncompressed pixels, as with gdcmconv --raw"
        )
    size = int(dataset.BitsAllocated) // 8
    kept = (1 << 8 * size) - 1 & ~sum(1 << bit for bit in bits)
    cells = len(value) // max(size, 1)
    mask = kept.to_bytes(size, "big" if syntax == ExplicitVRBigEndian else "little") * cells
    mask += b"\xff" * (len(value) - len(mask))
    return (int.from_bytes(value, "big") & int.from_bytes(mask, "big")).to_bytes(len(value), "big")


def _overlay_bits(dataset: Dataset) -> set[int]:
    """Return the bits of overlays without data of their own that hold no stored value."""
    positions = (dataset.get((group, _BIT_POSITION)) for group in _GROUPS if (group, _DATA) not in dataset)
    found = {int(element.value) for element in positions if element is not None and not element.is_empty}
    if not found:
        return found
    stored = int(dataset.BitsStored)
    high = int(dataset.get("HighBit", stored - 1))
    return {bit for bit in found if 0 <= bit < int(dataset.BitsAllocated)} - set(range(high - stored + 1, high + 1))
