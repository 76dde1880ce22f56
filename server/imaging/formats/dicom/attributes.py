"""Read attributes of a DICOM dataset whose values may break the rules of their representation.

No function quotes a value: it may name a patient.
"""

import contextlib
import re
import struct
from typing import Any

from pydantic import ValidationError
from pydicom.dataset import Dataset

from medmoe.server.errors import UnreadableImage
from medmoe.server.imaging.image import InstanceUIDs

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")

OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
UID_KEYWORDS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}


def get(dataset: Dataset, keyword: str) -> Any:
    """Return an attribute's value, None where it is absent, empty or cannot be converted."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises many types on malformed values
        return None
    return None if value is None or (hasattr(value, "__len__") and not len(value)) else value


def uid(dataset: Dataset, keyword: str) -> str:
    """Return a UID without padding, empty where there is none."""
    return str(get(dataset, keyword) or "").strip(" \0")


def instance_uids(dataset: Dataset) -> InstanceUIDs | None:
    """Return the UIDs of a file, None where one is missing or invalid."""
    try:
        return InstanceUIDs.model_validate({name: uid(dataset, keyword) for name, keyword in UID_KEYWORDS.items()})
    except ValidationError:
        return None


def required_uids(dataset: Dataset) -> InstanceUIDs:
    """Return the UIDs of a file. Raises UnreadableImage where one is missing or invalid."""
    found = instance_uids(dataset)
    if found is None:
        raise UnreadableImage("the DICOM file lacks a valid study, series or instance UID")
    return found


def code(dataset: Dataset, keyword: str, *, index: int = 0) -> str:
    """Return the value at `index` of a code string, in upper case without padding; empty where there is none."""
    items = _items(get(dataset, keyword))
    return str(items[index] or "").strip(" \0\t\r\n").upper() if index < len(items) else ""


def number(dataset: Dataset, keyword: str, *, index: int = 0) -> float | None:
    """Return the value at `index` of a numeric attribute, None for text that is no number as a whole."""
    items = _items(get(dataset, keyword))
    return _parse(items[index]) if index < len(items) else None


def count(dataset: Dataset, keyword: str) -> int:
    """Return how many values an attribute has."""
    return len(_items(get(dataset, keyword)))


def has_decimal_comma(dataset: Dataset, keyword: str) -> bool:
    texts = (getattr(item, "original_string", item) for item in _items(get(dataset, keyword)))
    return any(isinstance(text, str) and "," in text and _parse(text) is not None for text in texts)


def whole(dataset: Dataset, keyword: str, *, default: int | None = None) -> int:
    """Return an integer attribute. Raises UnreadableImage where it is absent without a default, or no integer."""
    if get(dataset, keyword) is None and default is not None:
        return default
    value = number(dataset, keyword)
    if value is None or value != int(value):
        raise UnreadableImage(f"the DICOM header lacks a number that describes the image: {keyword}")
    return int(value)


def is_big_endian(dataset: Dataset) -> bool:
    """Return whether a dataset, or a file that it is an item of, was stored in big-endian order."""
    return dataset.original_encoding[1] is False


def words(dataset: Dataset, keyword: str, *, signed: bool) -> tuple[int, ...]:
    """Return the values of a "US or SS" attribute by the given signedness, whatever representation it is stored in."""
    value = get(dataset, keyword)
    if isinstance(value, bytes):
        order = ">" if is_big_endian(dataset) else "<"
        value = struct.unpack(f"{order}{len(value) // 2}H", value[: len(value) // 2 * 2])
    found = []
    for item in _items(value):
        parsed = _parse(item)
        if parsed is None or parsed != int(parsed):
            return ()
        word = int(parsed) & 0xFFFF
        found.append(word - 0x10000 if signed and word >= 0x8000 else word)
    return tuple(found)


def overlay_bits(dataset: Dataset) -> tuple[int, ...]:
    """Return the bits of the pixels that hold the overlays without data of their own (PS3.3 C.9.2, retired)."""
    found = []
    for group in OVERLAY_GROUPS:
        if (group, 0x0102) in dataset and (group, 0x3000) not in dataset:
            with contextlib.suppress(Exception):  # pydicom raises many types on malformed values
                found.append(int(dataset[group, 0x0102].value))
    return tuple(found)


def sequence(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence."""
    return list(get(dataset, keyword) or [])


def first_item(dataset: Dataset, keyword: str, *, holding: str) -> Dataset | None:
    """Return the first item of a sequence in which the attribute `holding` has a value."""
    for item in _items(get(dataset, keyword)):
        if isinstance(item, Dataset) and get(item, holding) is not None:
            return item
    return None


def _items(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str):
        return value.split("\\")
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").split("\\")
    try:
        return list(value)
    except TypeError:
        return [value]


def _parse(item: Any) -> float | None:
    if isinstance(item, str):
        text = item.strip(" \0\t\r\n")
        # A comma between thousands and a decimal comma cannot be told apart: such text is no number.
        if _DECIMAL_COMMA.fullmatch(text) and not _THOUSANDS.fullmatch(text):
            text = text.replace(",", ".")
        if not _NUMBER.fullmatch(text):
            return None
        item = text
    try:
        value = float(item)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if abs(value) < 1e300 else None
