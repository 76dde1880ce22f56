"""Make DICOM files for tests: a gradient or given values, any attribute by its keyword, no patient."""

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian

UID = "1.2.826.0.1.3680043.8.498.1"


def gradient(shape: tuple[int, ...] = (20, 24), *, dtype: Any = np.int16, low: int = -1024) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) * 4 + low).astype(dtype)


def dicom(
    values: np.ndarray,
    *,
    syntax: str = ExplicitVRLittleEndian,
    frames: list[bytes] | None = None,
    colours: int = 1,
    **attributes: Any,
) -> bytes:
    """Return a file of `values` [rows, columns]; with `colours` 3 [..., 3], with NumberOfFrames [frames, ...].

    `frames`: compressed instead of `values`, which then only describe them. An attribute of None is left out.
    """
    dataset = Dataset()
    shape = values.shape[:-1] if colours == 3 else values.shape
    bits = values.dtype.itemsize * 8
    described: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": UID,
        "Modality": "CT",
        "Rows": shape[-2],
        "Columns": shape[-1],
        "SamplesPerPixel": colours,
        "PhotometricInterpretation": "RGB" if colours == 3 else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(values.dtype.kind == "i"),
        "PlanarConfiguration": 0 if colours == 3 else None,
    }
    for keyword, value in (described | attributes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = encapsulate(frames) if frames else pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].VR = "OB" if frames or bits == 8 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def look_up_table(entries: list[int], *, first: int = 0, bits: int = 16) -> Dataset:
    """Return an item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = np.asarray(entries, dtype="<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item
