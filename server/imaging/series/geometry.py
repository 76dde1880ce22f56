"""Represent where the slices of a DICOM file lie (PS3.3 C.7.6.2)."""

from pydantic import Field

from medmoe.server.imaging.decoder_config import Message
from medmoe.server.imaging.image import InstanceUIDs

Vector = tuple[float, float, float]
_SAME_PLACE = 0.01
"""Millimetres."""


class SliceGeometry(Message):
    """One frame."""

    position: Vector | None
    """Centre of the first pixel in millimetres, in the patient's coordinates; None where the file does not say."""
    rows: Vector | None
    """Direction in which the columns of a row follow one another, of length 1."""
    columns: Vector | None
    """Direction in which the rows follow one another, of length 1."""


class FileGeometry(Message):
    """The frames of one file, and what the slices of one volume share."""

    uids: InstanceUIDs
    sop_class: str
    """UID; empty where the file does not say."""
    frame_of_reference: str
    """UID; empty where the file does not say."""
    patient: str = Field(default="", repr=False)
    """Digest of the patient's ID; empty where the file has none."""
    modality: str
    height: int
    width: int
    number: int | None
    """Instance Number."""
    multi_frame: bool
    slices: tuple[SliceGeometry, ...] = Field(min_length=1)

    def agrees_with(self, other: "FileGeometry") -> bool:
        """Return whether `other` describes the same instance, with its frames at the same places."""
        same = self.uids == other.uids and len(self.slices) == len(other.slices)
        return same and all(map(_near, self.slices, other.slices))


class Survey(Message):
    """The files that a decoder process has looked at."""

    files: tuple[FileGeometry, ...]
    ignored: int
    """Instances that hold no image."""


def _near(one: SliceGeometry, other: SliceGeometry) -> bool:
    if one.position is None or other.position is None:
        return one.position is other.position
    return all(abs(a - b) <= _SAME_PLACE for a, b in zip(one.position, other.position, strict=True))
