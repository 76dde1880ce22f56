"""Tell what a frame is besides an image of a patient: a part, a mask, a localizer, one half of a subtraction."""

import math
from collections.abc import Iterator

from medmoe.server.imaging.formats.dicom.attributes import OVERLAY_GROUPS, code, get, number, sequence, uid
from medmoe.server.imaging.formats.dicom.file import DicomFile
from medmoe.server.schemas.images import RenderingStep

_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage, and Label Map Segmentation Storage."""
_REAL_WORLD = "RealWorldValueMappingSequence"


def kind_steps(file: DicomFile) -> Iterator[RenderingStep]:
    """Yield what a reader of the image must know, and what the file wants drawn and is not."""
    dataset = file.dataset
    # Overlays are planes of their own, or lie in unused bits of the pixels and have rows alone.
    if any((group, element) in dataset for group in OVERLAY_GROUPS for element in (0x3000, 0x0010)):
        yield "overlay_ignored"
    if get(dataset, "ShutterShape") is not None or file.functional_group("FrameDisplayShutterSequence") is not None:
        yield "shutter_ignored"
    if _maps_to_other_units(file):
        yield "real_world_values_ignored"
    # Of enhanced ultrasound, whose data paths have colours of their own (PS3.3 C.7.6.23).
    if sequence(dataset, "EnhancedPaletteColorLookupTableSequence"):
        yield "palette_ignored"
    if any(code(mask, "MaskOperation") not in ("", "NONE") for mask in sequence(dataset, "MaskSubtractionSequence")):
        yield "subtraction_ignored"
    if uid(dataset, "SOPClassUID") in _SEGMENTATIONS:
        yield "segmentation"
    whole = [number(dataset, f"TotalPixelMatrix{axis}") or 0 for axis in ("Rows", "Columns")]
    if whole[0] > file.height or whole[1] > file.width:
        yield "tile"
    if code(dataset, "ImageType", index=2) == "LOCALIZER":
        yield "localizer"


def _maps_to_other_units(file: DicomFile) -> bool:
    """Return whether real-world values differ from those that are rendered (PS3.3 C.7.6.16.2.11).

    Their mapping lies beside the pipeline of rendering, whose windows are in the units of the rescaling.
    """
    sources = (*file.functional_groups, file.dataset)
    mappings = next(filter(None, (sequence(each, _REAL_WORLD) for each in sources)), [])
    rescaling = file.functional_group("PixelValueTransformationSequence") or file.dataset
    return not all(
        _is_near(number(item, f"RealWorldValue{name}"), number(rescaling, f"Rescale{name}"), absent=absent)
        for item in mappings
        for name, absent in (("Slope", 1.0), ("Intercept", 0.0))
    )


def _is_near(mapped: float | None, rescaled: float | None, *, absent: float) -> bool:
    """Return whether a mapping's number is the rescaling's, `absent` where the file has no rescaling."""
    expected = absent if rescaled is None else rescaled
    return mapped is not None and math.isclose(mapped, expected, rel_tol=1e-5, abs_tol=1e-9)
