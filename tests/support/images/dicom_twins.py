"""List pydicom's test files that hold one image in several encodings, and compare how they are rendered.

`python -m tests.support.images.dicom_twins` prints file, reference and largest difference of 255.
"""

from pathlib import Path

import numpy as np
import pydicom.data

from medmoe.server.imaging.formats.reader import ImageReader
from medmoe.server.schemas.images import ImageFields
from tests.unit.server.conftest import decoder_config

ROOT = Path(pydicom.data.__path__[0]) / "test_files"
TWINS: dict[str, dict[str, int]] = {
    "MR_small.dcm": {
        "MR_small_RLE.dcm": 0, "MR_small_bigendian.dcm": 0, "MR_small_expb.dcm": 0, "MR_small_implicit.dcm": 0,
        "MR_small_jp2klossless.dcm": 0, "MR_small_jpeg_ls_lossless.dcm": 0, "MR_small_padded.dcm": 0,
    },
    "liver_1frame.dcm": {"liver_expb_1frame.dcm": 0},
    "rtdose.dcm": {"rtdose_expb.dcm": 0, "rtdose_rle.dcm": 0},
    "rtdose_1frame.dcm": {"rtdose_expb_1frame.dcm": 0, "rtdose_rle_1frame.dcm": 0},
    "SC_rgb_small_odd.dcm": {"SC_rgb_small_odd_big_endian.dcm": 0},
    "SC_rgb_rle.dcm": {"SC_rgb_rle_16bit.dcm": 0, "SC_rgb_rle_32bit.dcm": 0, "SC_rgb_rle_2frame.dcm": 0},
    "SC_ybr_full_422_uncompressed.dcm": {"SC_rgb_dcmtk_+eb+cr.dcm": 5},
    "JPEG-lossy.dcm": {"JPGExtended.dcm": 0},
}  # fmt: skip
"""By reference: its twins, and how much of 255 each may differ; lossy ones blur the edges of colour bars."""


def difference(reference: str, twin: str) -> int:
    """Return the largest difference of two rendered files."""
    reader = ImageReader(decoder_config(size=128))
    shown = [
        np.asarray(reader.read((ROOT / name).read_bytes(), ImageFields(allow_uniform=True)).image).astype(int)
        for name in (reference, twin)
    ]
    return int(np.abs(shown[0] - shown[1]).max())


def _main() -> None:
    for reference, twins in TWINS.items():
        for twin in twins:
            print(f"{twin:36} {reference:36} {difference(reference, twin)}")


if __name__ == "__main__":
    _main()
