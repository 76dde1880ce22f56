"""Draw the images that the page offers to try: a chest CT, a chest X-ray, and a DICOM file of several slices.

python -m tests.browser.sample_images
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import get_encoder
from pydicom.uid import EnhancedCTImageStorage, RLELossless

import medmoe.server
from tests.support.images.chest_x_ray import chest_x_ray
from tests.support.images.dicom_files import UID, dicom
from tests.support.images.phantom import chest_ct, chest_ct_slices

FOLDER = Path(medmoe.server.__path__[0]) / "page" / "samples"
_SIDE = 320
_SLICES, _SLICE_SIDE = 6, 160
_SPACING = 40
"""Millimetres between two slices."""
_SHADES = 32
"""Fewer shades than 256 make the files small."""


def sample_images() -> dict[str, bytes]:
    """Return each file's content by its name."""
    slices = chest_ct_slices(_SLICES, _SLICE_SIDE)
    return {
        "ct.png": _png(_windowed(chest_ct(_SIDE), centre=40, width=400)),
        "x-ray.png": _png(chest_x_ray(_SIDE)),
        "slices.png": _png(_windowed(slices[_SLICES // 2], centre=-300, width=1400)),
        "slices.dcm": _dicom(slices),
    }


def _windowed(values: np.ndarray, *, centre: float, width: float) -> np.ndarray:
    return (255 * np.clip((values - centre) / width + 0.5, 0, 1)).astype(np.uint8)


def _png(grey: np.ndarray) -> bytes:
    file = io.BytesIO()
    step = 256 // _SHADES
    shades = (grey // step * (255 / (_SHADES - 1))).astype(np.uint8)
    Image.fromarray(shades).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _dicom(slices: np.ndarray) -> bytes:
    encoder = get_encoder(RLELossless)
    shared, orientation = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = [orientation]
    described = {
        "rows": slices.shape[1], "columns": slices.shape[2], "number_of_frames": 1, "samples_per_pixel": 1,
        "bits_allocated": 16, "bits_stored": 16, "pixel_representation": 1, "photometric_interpretation": "MONOCHROME2",
    }  # fmt: skip
    frames = [encoder.encode(one, encoding_plugin="pydicom", **described) for one in slices]
    return dicom(
        slices,
        syntax=RLELossless,
        SOPClassUID=EnhancedCTImageStorage,
        StudyInstanceUID=f"{UID}.21",
        SeriesInstanceUID=f"{UID}.22",
        SOPInstanceUID=f"{UID}.23",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[_place(index) for index in range(len(slices))],
        frames=frames,
        NumberOfFrames=len(slices),
        WindowCenter=40,
        WindowWidth=400,
        RescaleSlope=1,
        RescaleIntercept=0,
        RescaleType="HU",
    )


def _place(index: int) -> Dataset:
    """Return the functional groups of a frame: its place along the body."""
    frame, position = Dataset(), Dataset()
    position.ImagePositionPatient = [0, 0, _SPACING * index]
    frame.PlanePositionSequence = [position]
    return frame


def main() -> None:
    for name, content in sample_images().items():
        (FOLDER / name).write_bytes(content)
        print(f"{name}: {len(content) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
