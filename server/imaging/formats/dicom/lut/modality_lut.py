"""Map stored values to the modality's units: look-up table or rescaling (PS3.3 C.11.1)."""

import math
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from medmoe.server.imaging.formats.dicom.attributes import code, first_item, get, has_decimal_comma, number
from medmoe.server.imaging.formats.dicom.lut.lookup_table import read_table
from medmoe.server.schemas.images import RenderingStep

_RESCALING = ("RescaleSlope", "RescaleIntercept")
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
    stored: np.ndarray, attributes: Dataset, *, modality: str, bits: int, signed: bool, ignored: bool
) -> ModalityValues:
    """Apply the modality LUT, unless it is to be ignored, else the rescaling, to `stored` values of `bits` bits."""
    item = None if ignored else first_item(attributes, "ModalityLUTSequence", holding="LUTDescriptor")
    if item is not None:
        table = read_table(item, descriptor="LUTDescriptor", data="LUTData", signed=signed)
        if table is not None:
            hounsfield = _hounsfield(code(item, "ModalityLUTType"), modality)
            return ModalityValues(values=table(stored), hounsfield=hounsfield, lowest=0.0, steps=("modality_lut",))
    rescaling, steps = _rescaling(attributes)
    if get(attributes, "ModalityLUTSequence") is not None:
        steps = ("modality_lut_ignored", *steps)
    ends = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    if stored.dtype.kind == "f":
        ends = (-math.inf, math.inf)
    if rescaling is None:
        return ModalityValues(values=stored, hounsfield=False, lowest=ends[0], steps=steps)
    slope, intercept = rescaling
    return ModalityValues(
        values=stored if rescaling == (1, 0) else stored.astype(np.float64) * slope + intercept,
        hounsfield=_hounsfield(code(attributes, "RescaleType"), modality),
        lowest=min(end * slope + intercept for end in ends),
        steps=steps,
    )


def _rescaling(attributes: Dataset) -> tuple[tuple[float, float] | None, tuple[RenderingStep, ...]]:
    """Return slope and intercept, None where none can be used, and the steps that this takes."""
    slope, intercept = (number(attributes, keyword) for keyword in _RESCALING)
    present = [get(attributes, keyword) is not None for keyword in _RESCALING]
    if not any(present):
        return None, ()
    if (present[0] and (not slope or abs(slope) > _LARGEST)) or (
        present[1] and (intercept is None or abs(intercept) > _LARGEST)
    ):
        return None, ("rescale_ignored",)
    steps: list[RenderingStep] = []
    if any(has_decimal_comma(attributes, keyword) for keyword in _RESCALING):
        steps.append("decimal_comma")
    if not all(present):
        steps.append("rescale_completed")
    return (slope or 1.0, intercept or 0.0), (*steps, "rescale")


def _hounsfield(unit: str, modality: str) -> bool:
    return modality == "CT" and unit in ("", "HU")
