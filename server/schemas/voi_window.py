"""Parse the `window` field: the grey values of a DICOM image that become black to white."""

import math
import re
from dataclasses import dataclass
from typing import Literal

MAX_LENGTH = 128
_LARGEST = 1e20
"""Largest centre and width, with which float32 still computes."""
_NUMBER = r"[+-]?\d{1,8}(?:\.\d{1,6})?"
_EXPLICIT = re.compile(rf"({_NUMBER})/({_NUMBER})", re.ASCII)

Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Centre and width in the image's own units (CT: Hounsfield), and the curve between its ends (PS3.3 C.11.2)."""

    centre: float
    width: float
    function: Function = "LINEAR_EXACT"


PRESETS = {
    "lung": Window(centre=-600, width=1500),
    "mediastinum": Window(centre=50, width=350),
    "soft_tissue": Window(centre=40, width=400),
    "liver": Window(centre=60, width=160),
    "bone": Window(centre=400, width=1800),
    "brain": Window(centre=40, width=80),
    "subdural": Window(centre=75, width=215),
    "stroke": Window(centre=40, width=40),
}
"""Radiology's usual windows, in Hounsfield units: for CT only."""

Choice = Window | Literal["file", "full"]
"""A window, the file's own, or the range from the frame's smallest value to its largest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """The window of one grey rendering of the frame, and whether it is in Hounsfield units."""

    choice: Choice
    hounsfield: bool = False


def parse(text: str) -> tuple[Channel, ...]:
    """Parse one channel, or three (red, green, blue) with commas: each a preset, `centre/width`, `file` or `full`.

    Raises ValueError, without quoting `text`.
    """
    parts = text.split(",")
    if len(text) > MAX_LENGTH or len(parts) not in (1, 3):
        raise ValueError("send one window, or three with commas between them for red, green and blue")
    return tuple(_channel(part.strip()) for part in parts)


def _channel(text: str) -> Channel:
    if text == "file":
        return Channel(choice="file")
    if text == "full":
        return Channel(choice="full")
    if text in PRESETS:
        return Channel(choice=PRESETS[text], hounsfield=True)
    if found := _EXPLICIT.fullmatch(text):
        centre, width = map(float, found.groups())
        if usable(centre, width):
            return Channel(choice=Window(centre=centre, width=width))
    raise ValueError(f"a window is centre/width with a width above 0, file, full, or one of {', '.join(PRESETS)}")


def usable(centre: float, width: float) -> bool:
    """Return whether a window with these numbers can be computed."""
    return math.isfinite(centre) and math.isfinite(width) and abs(centre) <= _LARGEST and 0 < width <= _LARGEST
