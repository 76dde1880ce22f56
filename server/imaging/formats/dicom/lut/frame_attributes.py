"""Find the attributes that say how the values of a frame are shown: the file's, or those of the frame's groups."""

from collections.abc import Iterable

from pydicom.dataset import Dataset

from medmoe.server.imaging.formats.dicom.attributes import code, get, sequence, uid

_GROUPS = {
    "PixelValueTransformationSequence": ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    "FrameVOILUTSequence": ("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
}
"""Functional groups, and what of the file each stands for as a whole."""
_PROJECTIONS = ("1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2", "1.2.840.10008.5.1.4.1.1.12.3")
"""X-ray angiography of one plane and, retired, of two; radiofluoroscopy."""


def frame_attributes(dataset: Dataset, groups: Iterable[Dataset]) -> Dataset:
    """Return the attributes for a frame with these functional groups, its own before those of all frames."""
    found = Dataset()
    found.file_meta = dataset.file_meta
    groups = tuple(groups)
    for name, keywords in _GROUPS.items():
        items = [item for group in groups for item in sequence(group, name)[:1]]
        for source in (*items, dataset):
            present = [keyword for keyword in keywords if get(source, keyword) is not None]
            for keyword in present:
                found[keyword] = source[keyword]
            if present:
                break
    return found


def ignores_modality_lut(dataset: Dataset) -> bool:
    """Return whether the modality LUT leads back to intensities, and windows are in stored values (C.8.7.1.1.2)."""
    is_projection = uid(dataset, "SOPClassUID") in _PROJECTIONS
    return is_projection and code(dataset, "PixelIntensityRelationship") in ("LOG", "DISP")
