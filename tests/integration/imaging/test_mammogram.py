"""A full-field mammogram passes through the decoder processes at the default limits."""

import numpy as np
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.uid import JPEG2000Lossless

from medmoe.server.imaging.sandbox.pool import DecoderPool
from medmoe.server.schemas.images import ImageFields
from medmoe.server.settings import Settings
from tests.support.checkpoints.tiny import tiny_config
from tests.support.images.dicom_files import dicom

ROWS, COLUMNS = 4096, 3328


async def test_a_full_field_mammogram_is_decoded() -> None:
    values = np.zeros((ROWS, COLUMNS), np.uint16)
    values[:, : COLUMNS // 2] = 4095
    dataset = dcmread(
        DicomBytesIO(dicom(values, Modality="MG", PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11))
    )
    dataset.compress(JPEG2000Lossless)
    file = DicomBytesIO()
    dataset.save_as(file, enforce_file_format=True)
    pool = DecoderPool.of(Settings(engine="fake"), tiny_config())
    try:
        decoded = await pool.decode(file.getvalue(), ImageFields(), view="frame")
    finally:
        pool.close()
    assert (decoded.width, decoded.height) == (COLUMNS, ROWS)
    assert decoded.image.getpixel((10, 10)) == (0, 0, 0)
    assert decoded.image.getpixel((decoded.size[0] - 10, 10)) == (255, 255, 255)
