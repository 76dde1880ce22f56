"""Choose and apply the VOI look-up table or window of a frame (PS3.3 C.11.2)."""

import numpy as np
from pydicom.dataset import Dataset

from medmoe.server.imaging.formats.dicom.attributes import code, count, first_item, get, has_decimal_comma, number
from medmoe.server.imaging.formats.dicom.lut.lookup_table import LookupTable, read_table
from medmoe.server.schemas.images import RenderingStep
from medmoe.server.schemas.voi_window import Function, Window, usable

_FUNCTIONS: dict[str, Function] = {"LINEAR": "LINEAR", "LINEAR_EXACT": "LINEAR_EXACT", "SIGMOID": "SIGMOID"}


def apply_window(values: np.ndarray, window: Window) -> np.ndarray:
    """Return uint8 of the same shape: 0 below the window, 255 above it (PS3.3 C.11.2.1)."""
    centre, width = window.centre, window.width
    # Near the centre first: of 32 bits a float32 holds 24.
    scaled: np.ndarray = (values - centre if values.dtype.itemsize > 2 else values.astype(np.float32) - centre).astype(
        np.float32, copy=False
    )
    if window.function == "LINEAR":
        scaled += 0.5
        width -= 1
    if window.function == "SIGMOID":
        scaled *= -4 / width
        np.exp(np.clip(scaled, -80, 80, out=scaled), out=scaled)
        scaled += 1
        np.divide(255, scaled, out=scaled)
    else:
        scaled += width / 2
        # A width of nothing is a threshold.
        scaled *= 255 / max(width, 1e-15)
    np.rint(np.clip(scaled, 0, 255, out=scaled), out=scaled)
    shades: np.ndarray = scaled.astype(np.uint8)
    return shades


def apply_table(values: np.ndarray, table: LookupTable) -> np.ndarray:
    """Return uint8 of the same shape from a VOI LUT of any number of bits."""
    mapped = table(values).astype(np.float32)
    mapped *= 255 / (2**table.bits - 1)
    return np.rint(np.clip(mapped, 0, 255)).astype(np.uint8)


def file_table(attributes: Dataset, *, lowest: float) -> LookupTable | None:
    """Return the file's first VOI LUT that holds data.

    `lowest` is the smallest value that can come in: below 0 the table's first mapped value is signed.
    """
    item = first_item(attributes, "VOILUTSequence", holding="LUTData")
    if item is None:
        return None
    return read_table(item, descriptor="LUTDescriptor", data="LUTData", signed=lowest < 0)


def file_window(attributes: Dataset) -> tuple[Window | None, tuple[RenderingStep, ...]]:
    """Return the file's first usable window, and the repairs that this took."""
    steps: list[RenderingStep] = []
    keywords = ("WindowCenter", "WindowWidth")
    for index in range(min(count(attributes, keyword) for keyword in keywords)):
        centre, width = (number(attributes, keyword, index=index) for keyword in keywords)
        if centre is None or width is None or not usable(centre, width):
            continue
        if any(has_decimal_comma(attributes, keyword) for keyword in keywords):
            steps.append("decimal_comma")
        named = code(attributes, "VOILUTFunction") or "LINEAR"
        function = _FUNCTIONS.get(named)
        if function is None:
            steps.append("voi_function_ignored")
            function = "LINEAR"
        if function == "LINEAR" and width < 1:
            # LINEAR has no meaning under a width of 1, which files of small values nevertheless have.
            steps.append("linear_exact")
            function = "LINEAR_EXACT"
        return Window(centre=centre, width=width, function=function), tuple(steps)
    if any(get(attributes, keyword) is not None for keyword in keywords):
        steps.append("window_ignored")
    return None, tuple(steps)
