"""Map stored values to the modality's units: look-up table or rescaling (PS3.3 C.11.1)."""

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from medmoe.server.imaging.formats.dicom.attributes import code, first_item, get, has_decimal_comma, number
from medmoe.server.imaging.formats.dicom.lut.lookup_table import read_table
from medmoe.server.schemas.images import RenderingStep

_LARGEST = 1e20
"""Largest slope and intercept with which values of 32 bits fit a float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModalityValues:
    """Values of a frame in the modality's units."""

    values: np.ndarray
    hounsfield: bool
    lowest: float
    """Smallest value that the stored bits can mean: decides whether a VOI LUT's first value is signed."""
    steps: tuple[RenderingStep, ...]


def apply_modality(
    stored: np.ndarray,
    attributes: Dataset,
    *,
    modality: str,
    bits: int,
    signed: bool,
    big_endian: bool,
    ignored: bool = False,
) -> ModalityValues:
    """Apply the modality LUT, unless it is to be ignored, else the rescaling, to `stored` values of `bits` bits."""
    steps: list[RenderingStep] = []
    item = None if ignored else first_item(attributes, "ModalityLUTSequence", holding="LUTDescriptor")
    if item is not None:
        table = read_table(item, descriptor="LUTDescriptor", data="LUTData", signed=signed, big_endian=big_endian)
        if table is not None:
            steps.append("modality_lut")
            return ModalityValues(
                values=table(stored),
                hounsfield=_hounsfield(code(item, "ModalityLUTType"), modality),
                lowest=0.0,
                steps=tuple(steps),
            )
    if get(attributes, "ModalityLUTSequence") is not None:
        steps.append("modality_lut_ignored")
    ends = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    if stored.dtype.kind == "f":
        ends = (float(-np.inf), float(np.inf))
    slope, intercept = number(attributes, "RescaleSlope"), number(attributes, "RescaleIntercept")
    present = [get(attributes, keyword) is not None for keyword in ("RescaleSlope", "RescaleIntercept")]
    if not any(present):
        return ModalityValues(values=stored, hounsfield=False, lowest=ends[0], steps=tuple(steps))
    if (present[0] and (not slope or abs(slope) > _LARGEST)) or (
        present[1] and (intercept is None or abs(intercept) > _LARGEST)
    ):
        steps.append("rescale_ignored")
        return ModalityValues(values=stored, hounsfield=False, lowest=ends[0], steps=tuple(steps))
    if any(has_decimal_comma(attributes, keyword) for keyword in ("RescaleSlope", "RescaleIntercept")):
        steps.append("decimal_comma")
    if not all(present):
        steps.append("rescale_completed")
    rescale = Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = slope or 1.0, intercept or 0.0
    steps.append("rescale")
    identity = (rescale.RescaleSlope, rescale.RescaleIntercept) == (1, 0)
    return ModalityValues(
        values=stored if identity else apply_modality_lut(stored, rescale),
        hounsfield=_hounsfield(code(attributes, "RescaleType"), modality),
        lowest=min(end * rescale.RescaleSlope + rescale.RescaleIntercept for end in ends),
        steps=tuple(steps),
    )


def _hounsfield(unit: str, modality: str) -> bool:
    return modality == "CT" and unit in ("", "HU")
