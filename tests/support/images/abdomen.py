"""Draw abdominal CT series of patients who differ, each with or without one lesion in some of its slices."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tests.support.images.dicom_files import UID, dicom
from tests.support.images.phantom import draw_ellipse

SLICES = 64
LESION = range(20, 31)
"""Slices with a lesion, unless others are asked for."""
_NOISE = 18.0
"""Standard deviation in Hounsfield units."""
_CENTRE, _WIDTH = 40, 400
_SPACING = 3.0
"""Millimetres."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lesion:
    x: float
    y: float
    radius: float
    stretch: float
    turn: float
    hounsfield: float


class Abdomen:
    """A drawn patient: the seed chooses anatomy, and place, size and contrast of the lesion."""

    def __init__(self, seed: int, *, side: int = 128) -> None:
        """Slices have `side` pixels a side."""
        self._seed = seed
        self._y, self._x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        chance = np.random.default_rng(seed)
        self._body = chance.uniform(0.78, 0.95, 2) * (1, 0.72)
        self._shift = chance.uniform(-0.04, 0.04, 2)
        self._tissue = chance.uniform(30, 60)
        self._liver = chance.uniform((-0.42, -0.20, 0.30, 0.30, 20), (-0.32, -0.05, 0.40, 0.40, 60))
        self._vessel = chance.uniform(120, 220)
        self._gas = chance.uniform((0.10, -0.35, 0.04, 0.03), (0.45, -0.15, 0.11, 0.08), (3, 4))
        # In the liver, so that the lesion lies over tissue.
        away, angle = 0.20 * np.sqrt(chance.uniform()), chance.uniform(0, 2 * np.pi)
        contrast = chance.uniform(90, 170) * chance.choice((-1, 1))
        self._lesion = _Lesion(
            x=self._liver[0] + away * np.cos(angle),
            y=self._liver[1] + away * np.sin(angle),
            radius=chance.uniform(0.07, 0.15),
            stretch=chance.uniform(0.75, 1.3),
            turn=chance.uniform(0, 180),
            hounsfield=self._tissue + 15 + contrast,
        )

    @property
    def uids(self) -> tuple[str, str]:
        """Return the UIDs of the study and of its series with a lesion."""
        study = f"{UID}.{1000 + self._seed}"
        return study, f"{study}.1"

    def slice(self, index: int, *, lesion: range | None) -> np.ndarray:
        """Return Hounsfield units [side, side], int16, of slice `index` of SLICES, with a lesion in slices `lesion`."""
        depth = 2 * index / (SLICES - 1) - 1
        chance = np.random.default_rng((self._seed, index))
        values = np.full(self._x.shape, -1000, np.float32)
        wide, high = self._body * (1 - 0.15 * depth**2)
        liver_x, liver_y, liver_wide, liver_high, turn = self._liver
        parts = [
            (0.0, 0.0, wide, high, 0.0, -95.0),
            (0.0, 0.0, 0.92 * wide, 0.90 * high, 0.0, self._tissue),
            (0.0, -0.04, 0.84 * wide, 0.78 * high, 0.0, -80.0),
            (liver_x, liver_y, liver_wide * (1 - 0.1 * depth), liver_high * (1 - 0.1 * depth), turn, self._tissue + 15),
            (0.48, 0.05, 0.15, 0.10 * (1.2 + depth), 60.0, self._tissue + 5),
            (-0.33, 0.27, 0.10, 0.12, 10.0, self._tissue + 60),
            (0.33, 0.27, 0.10, 0.12, -10.0, self._tissue + 60),
            (0.03, 0.13, 0.06, 0.06, 0.0, self._vessel),
            (-0.10, 0.12, 0.07, 0.05, 0.0, self._vessel - 60),
            (0.0, 0.34, 0.14, 0.12, 0.0, 450.0),
            *((x + 0.1 * np.sin(3 * depth), y, w, h, 0.0, -800.0) for x, y, w, h in self._gas),
        ]
        for x, y, *shape in parts:
            draw_ellipse(values, self._x, self._y, x + self._shift[0], y + self._shift[1], *shape)
        values[~self._inside(wide, high)] = -1000
        if lesion is not None and index in lesion:
            self._draw_lesion(values, 2 * (index - lesion.start + 0.5) / len(lesion) - 1)
        smooth = (values + sum(np.roll(values, step, axis) for step in (-1, 1) for axis in (0, 1))) / 5
        return np.clip(smooth + chance.normal(0, _NOISE, values.shape), -1024, 3071).astype(np.int16)

    def image(self, index: int, *, lesion: range | None) -> Image.Image:
        """Return a slice as a grey image in the window of the files."""
        shown = (self.slice(index, lesion=lesion) - (_CENTRE - 0.5)) / (_WIDTH - 1) + 0.5
        return Image.fromarray((255 * shown).clip(0, 255).round().astype(np.uint8))

    def files(self, *, lesion: range | None = LESION) -> Iterator[bytes]:
        """Yield the slices as DICOM files of one series; their numbers run against their places."""
        for index in range(SLICES):
            yield self.file(index, lesion=lesion)

    def file(self, index: int, *, lesion: range | None) -> bytes:
        """Return a slice as DICOM file."""
        study, series = self.uids
        if lesion is None:
            series += ".1"
        attributes: dict[str, Any] = {
            "RescaleSlope": 1,
            "RescaleIntercept": 0,
            "RescaleType": "HU",
            "WindowCenter": _CENTRE,
            "WindowWidth": _WIDTH,
            "PatientName": "Phantom^Abdomen",
            "PatientID": f"PHANTOM-{self._seed}",
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "SOPInstanceUID": f"{series}.{index + 1}",
            "FrameOfReferenceUID": f"{series}.0",
            "InstanceNumber": SLICES - index,
            "PixelSpacing": [2.5, 2.5],
            "ImagePositionPatient": [-160, -160, _SPACING * index],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        }
        return dicom(self.slice(index, lesion=lesion), **attributes)

    def _inside(self, wide: float, high: float) -> np.ndarray:
        """Return which pixels lie in the body [side, side]."""
        x, y = self._shift
        inside: np.ndarray = ((self._x - x) / wide) ** 2 + ((self._y - y) / high) ** 2 < 1
        return inside

    def _draw_lesion(self, values: np.ndarray, place: float) -> None:
        """Draw the section of an ellipsoid at `place` of its axis, from -1 to 1."""
        lesion = self._lesion
        radius = lesion.radius * np.sqrt(1 - place**2)
        wide, high = radius * lesion.stretch, radius / lesion.stretch
        x, y = lesion.x + self._shift[0], lesion.y + self._shift[1]
        draw_ellipse(values, self._x, self._y, x, y, wide, high, lesion.turn, lesion.hounsfield)
