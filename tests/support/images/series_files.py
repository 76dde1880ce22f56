"""Draw a CT series with a lesion in some slices, as single files, as frames of one file, and as an archive."""

import io
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from tests.support.images.dicom_files import UID, dicom

STUDY, SERIES = f"{UID}.7", f"{UID}.8"
LESION = range(20, 31)
"""Slices with a lesion."""
_SPACING = 2.0


def pixels(index: int, *, side: int = 24) -> np.ndarray:
    """Return Hounsfield units [side, side]: a body, and in slices of LESION a bright square."""
    values = np.full((side, side), -1000, np.int16)
    values[3:-3, 3:-3] = 40 + index % 3
    if index in LESION:
        values[8:16, 8:16] = 1000
    return values


def ct_slice(index: int, values: np.ndarray | None = None, **attributes: Any) -> bytes:
    """Return one slice; its number runs against its position."""
    given = {
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "RescaleType": "HU",
        "WindowCenter": 40,
        "WindowWidth": 400,
        "PatientName": "Phantom^Series",
        "PatientID": "PHANTOM-2",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "SOPInstanceUID": f"{SERIES}.{index + 1}",
        "FrameOfReferenceUID": f"{UID}.9",
        "InstanceNumber": 1000 - index,
        "ImagePositionPatient": [-12, -12, _SPACING * index],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    }
    return dicom(pixels(index) if values is None else values, **given | attributes)


def ct_series(indices: Iterable[int] = range(64), **attributes: Any) -> list[bytes]:
    """Return slices of the series, all with `attributes`."""
    return [ct_slice(index, **attributes) for index in indices]


def enhanced_ct(indices: Iterable[int] = range(64), **attributes: Any) -> bytes:
    """Return the slices as frames of one file, with a place for each frame."""
    order = list(indices)
    frames = []
    for index in order:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [-12, -12, _SPACING * index]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    shared, orientation = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = [orientation]
    return ct_slice(
        0,
        np.stack([pixels(index) for index in order]),
        **{
            "SOPClassUID": EnhancedCTImageStorage,
            "NumberOfFrames": len(order),
            "ImagePositionPatient": None,
            "ImageOrientationPatient": None,
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": frames,
        }
        | attributes,
    )


def archive(
    files: Iterable[bytes], *, others: dict[str, bytes] | None = None, method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """Return a ZIP archive whose names lead out of any folder."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as packed:
        for index, data in enumerate(files):
            packed.writestr(f"../../../tmp/slice-{index}", data)
        for name, data in (others or {}).items():
            packed.writestr(name, data)
    return file.getvalue()
