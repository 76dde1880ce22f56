"""Find the attributes that say how the values of a frame are shown: the file's, or those of the frame's groups."""

from collections.abc import Iterable

from pydicom.dataset import Dataset

from medmoe.server.errors import UnreadableImage
from medmoe.server.imaging.formats.dicom.attributes import code, get, sequence, uid

_GROUPS = {
    "PixelValueTransformationSequence": ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    "FrameVOILUTSequence": ("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
}
"""Functional groups, and what of the file each stands for as a whole."""
_QUALIFIERS = {"RescaleType", "VOILUTFunction"}
"""Attributes that alone say nothing."""
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
            if not set(present) <= _QUALIFIERS:
                for keyword in present:
                    found[keyword] = source[keyword]
                break
    return found


def check_frames(dataset: Dataset, frames: int) -> None:
    """Raise UnreadableImage where the file describes another number of frames than it has, and shows them differently.

    A frame that was taken out of its file keeps the groups of all frames.
    """
    per_frame = sequence(dataset, "PerFrameFunctionalGroupsSequence")
    if len(per_frame) in (0, frames):
        return
    shared = sequence(dataset, "SharedFunctionalGroupsSequence")[:1]
    groups = [own for own in per_frame if any(name in own for name in _GROUPS)]
    if len(groups) < max(len(per_frame), frames):
        # All frames without groups of their own are shown alike.
        groups.append(Dataset())
    first, *others = (frame_attributes(dataset, (own, *shared)) for own in groups)
    if any(other != first for other in others):
        raise UnreadableImage(
            f"the DICOM header describes {len(per_frame)} frames and the file has {frames}: nothing tells which "
            "rescaling and window are those of a frame; export the frames anew"
        )


def ignores_modality_lut(dataset: Dataset) -> bool:
    """Return whether the modality LUT leads back to intensities, and windows are in stored values (C.8.7.1.1.2)."""
    is_projection = uid(dataset, "SOPClassUID") in _PROJECTIONS
    return is_projection and code(dataset, "PixelIntensityRelationship") in ("LOG", "DISP")
