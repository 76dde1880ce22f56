"""Read where the slices of a DICOM file lie, without decoding any pixel."""

import hashlib
import io
import math
import operator
from collections.abc import Sequence

from pydantic_core import from_json
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from medmoe.server.errors import UnreadableImage, UnsupportedImage
from medmoe.server.imaging.formats.dicom.attributes import (
    UID_KEYWORDS,
    code,
    count,
    get,
    number,
    required_uids,
    sequence,
    uid,
)
from medmoe.server.imaging.formats.dicom.meta_header import with_meta_header
from medmoe.server.imaging.formats.sniff import sniff
from medmoe.server.imaging.series.errors import NotAVolume, SeriesTooLarge
from medmoe.server.imaging.series.geometry import FileGeometry, SliceGeometry, Survey, Vector

_KEYWORDS = (
    *UID_KEYWORDS.values(), "PatientID", "SOPClassUID", "FrameOfReferenceUID", "Modality", "InstanceNumber",
    "Rows", "Columns", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_UNIT = 1e-2
"""Largest error of a direction's length, and of the cosine of two perpendicular ones."""


def survey_file(data: bytes, *, max_slices: int) -> Survey:
    """Return the geometry of a DICOM file, nothing for one without an image.

    Raises UnsupportedImage, UnreadableImage, SeriesTooLarge, or anything that pydicom raises.
    """
    if sniff(data) != "DICOM":
        raise UnsupportedImage("a series consists of DICOM files; ask about other images with /v1/vqa")
    body, _ = with_meta_header(data)
    header = dcmread(io.BytesIO(body), stop_before_pixels=True, specific_tags=list(_KEYWORDS))
    found = _geometry(header, max_slices=max_slices)
    return Survey(files=() if found is None else (found,), ignored=int(found is None))


def survey_metadata(data: bytes, *, max_slices: int) -> Survey:
    """Return the geometry of the images in DICOM JSON (PS3.18 annex F), as WADO-RS has a series' metadata.

    Raises UnreadableImage for something else, and what `survey_file` raises.
    """
    try:
        items = from_json(data)
    except ValueError as error:
        raise UnreadableImage("the source's metadata are no JSON") from error
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnreadableImage("the source's metadata are no list of instances")
    if len(items) > max_slices:
        raise SeriesTooLarge.over_files(max_slices)
    tags = {f"{tag_for_keyword(keyword):08X}" for keyword in _KEYWORDS}
    files = []
    for item in items:
        header = Dataset.from_json({tag: value for tag, value in item.items() if tag.upper() in tags})
        found = _geometry(header, max_slices=max_slices)
        if found is not None:
            files.append(found)
    return Survey(files=tuple(files), ignored=len(items) - len(files))


def _geometry(header: Dataset, *, max_slices: int) -> FileGeometry | None:
    """Return the geometry of an instance, None where it has no image."""
    height, width = _whole(header, "Rows"), _whole(header, "Columns")
    if not height or not width:
        return None
    frames = _whole(header, "NumberOfFrames") or 1
    if frames > max_slices:
        raise SeriesTooLarge.over_files(max_slices)
    return FileGeometry(
        uids=required_uids(header),
        sop_class=uid(header, "SOPClassUID"),
        frame_of_reference=uid(header, "FrameOfReferenceUID"),
        patient=_digest(str(get(header, "PatientID") or "").strip(" \0")),
        modality=code(header, "Modality"),
        height=height,
        width=width,
        number=_whole(header, "InstanceNumber"),
        multi_frame=frames > 1,
        slices=tuple(_slice(sources) for sources in _sources(header, frames)),
    )


def _digest(patient_id: str) -> str:
    """Return what tells patients apart, without the ID; empty for an empty one."""
    return hashlib.sha256(patient_id.encode("utf-8", "surrogatepass")).hexdigest()[:16] if patient_id else ""


def _whole(header: Dataset, keyword: str) -> int | None:
    """Return an integer from 0, None where there is none that a DICOM file can hold."""
    value = number(header, keyword)
    return int(value) if value is not None and 0 <= value < 2**31 else None


def _sources(header: Dataset, frames: int) -> list[Sequence[Dataset]]:
    """Return for each frame the datasets that tell its place, the most specific first."""
    shared = sequence(header, "SharedFunctionalGroupsSequence")[:1]
    per_frame = sequence(header, "PerFrameFunctionalGroupsSequence")
    if frames == 1:
        return [(*per_frame[:1], *shared, header)]
    if len(per_frame) not in (0, frames):
        raise NotAVolume("the file has another number of frames than of places; it is damaged")
    # The position of the whole says nothing of a single frame.
    return [(*per_frame[frame : frame + 1], *shared) for frame in range(frames)]


def _slice(sources: Sequence[Dataset]) -> SliceGeometry:
    position = _found(sources, "PlanePositionSequence", "ImagePositionPatient", 3)
    cosines = _found(sources, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    rows = columns = None
    if cosines is not None:
        rows, columns = _unit(cosines[:3]), _unit(cosines[3:])
        if rows is None or columns is None or abs(sum(map(operator.mul, rows, columns))) > _UNIT:
            rows = columns = None
    return SliceGeometry(
        position=None if position is None else (position[0], position[1], position[2]),
        rows=rows if position is not None else None,
        columns=columns if position is not None else None,
    )


def _found(sources: Sequence[Dataset], group: str, keyword: str, length: int) -> tuple[float, ...] | None:
    """Return the numbers of `keyword`, of the first source that has it, within `group` or itself."""
    for source in sources:
        for item in (*sequence(source, group)[:1], source):
            if count(item, keyword) == length:
                values = [number(item, keyword, index=index) for index in range(length)]
                known = tuple(value for value in values if value is not None and abs(value) < 1e6)
                return known if len(known) == length else None
    return None


def _unit(vector: Sequence[float]) -> Vector | None:
    """Return the vector with length 1, None where it is far from that."""
    length = math.hypot(*vector)
    if abs(length - 1) > _UNIT:
        return None
    return vector[0] / length, vector[1] / length, vector[2] / length
