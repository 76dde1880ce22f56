"""Draw a chest CT: ellipses of body, lungs, heart and bone in Hounsfield units, with noise."""

from typing import Any

import numpy as np

from tests.support.images.dicom_files import UID, dicom

AIR, LUNG, FAT, MUSCLE, BLOOD, BONE, MARROW = -1000, -850, -95, 50, 40, 550, 180
# centre x and y, half width and half height, degrees, Hounsfield; later ones lie over earlier ones.
_PARTS: tuple[tuple[float, float, float, float, float, int], ...] = (
    (0.0, 0.0, 0.90, 0.63, 0, FAT),
    (0.0, 0.01, 0.83, 0.56, 0, MUSCLE),
    (0.0, -0.02, 0.74, 0.47, 0, FAT),
    (-0.41, 0.0, 0.33, 0.43, 8, LUNG),
    (0.41, 0.0, 0.33, 0.43, -8, LUNG),
    (0.0, -0.02, 0.14, 0.40, 0, FAT),
    (0.10, -0.12, 0.26, 0.22, 35, MUSCLE),
    (0.12, -0.12, 0.17, 0.13, 35, BLOOD),
    (-0.07, -0.20, 0.08, 0.08, 0, BLOOD),
    (0.12, 0.24, 0.062, 0.062, 0, BLOOD),
    (0.0, 0.12, 0.04, 0.03, 0, AIR),
    (0.0, 0.34, 0.12, 0.105, 0, BONE),
    (0.0, 0.34, 0.095, 0.08, 0, MARROW),
    (0.0, 0.475, 0.055, 0.05, 0, MUSCLE),
    (-0.10, 0.46, 0.11, 0.028, 25, BONE),
    (0.10, 0.46, 0.11, 0.028, -25, BONE),
    (0.0, 0.55, 0.022, 0.07, 0, BONE),
    (0.0, -0.49, 0.10, 0.026, 0, BONE),
    (0.0, -0.49, 0.08, 0.014, 0, MARROW),
)
STUDY = {
    "PatientName": "Phantom^Chest",
    "PatientID": "PHANTOM-1",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.2",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.3",
    "StudyDate": "20260514",
    "StudyTime": "101500",
    "StudyDescription": "CT chest",
    "SeriesNumber": 1,
    "InstanceNumber": 1,
}
"""Patient, study and series of the drawn CT."""
_RIBS = ((25, 20), (62, 12), (118, 12), (155, 20), (205, 20), (242, 12), (298, 12), (335, 20))
"""Degrees around the chest, and the tilt of each rib in degrees."""


def chest_ct(side: int = 384, *, seed: int = 7) -> np.ndarray:
    """Return Hounsfield units [side, side], int16."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    values = np.full((side, side), AIR, np.float32)
    for part in _PARTS:
        draw_ellipse(values, x, y, *part)
    _ribs(values, x, y)
    chance = np.random.default_rng(seed)
    _vessels(values, x, y, chance)
    noise = chance.normal(0, 26, values.shape)
    return np.clip(_blurred(values, side / 320) + _blurred(noise, 0.7), -1024, 3071).astype(np.int16)


def chest_ct_slices(count: int, side: int) -> np.ndarray:
    """Return slices from the top of the chest to its base, without noise [count, side, side], int16."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    slices = []
    for depth in np.linspace(-0.8, 0.9, count):
        # The chest is widest in its middle; the lungs end above and below, the heart lies low.
        body, lung, heart = 1 - 0.12 * depth**2, np.sqrt(1 - 0.8 * depth**2), np.sqrt(max(0.05, 1 - (depth - 0.3) ** 2))
        values = np.full((side, side), AIR, np.float32)
        for cx, cy, wide, high, turn, hounsfield in _PARTS:
            is_heart = (cx, hounsfield) in ((0.10, MUSCLE), (0.12, BLOOD)) and cy < 0
            size = body * (lung if hounsfield == LUNG else heart if is_heart else 1)
            draw_ellipse(values, x, y, cx * body, cy * body, wide * size, high * size, turn, hounsfield)
        _ribs(values, x, y, body)
        _vessels(values, x, y, np.random.default_rng(int(10 * (depth + 2))))
        slices.append(_blurred(values, side / 320))
    return np.stack(slices).astype(np.int16)


def chest_ct_file(side: int = 384, **attributes: Any) -> bytes:
    """Return the chest CT as a DICOM file of a study of its own, with a window of 40/400."""
    hounsfield = {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU"}
    return dicom(chest_ct(side), WindowCenter=40, WindowWidth=400, **hounsfield | STUDY | attributes)


def chest_ct_series(count: int, side: int, **attributes: Any) -> list[bytes]:
    """Return `chest_ct_slices` as files of one series, 5 mm apart, from the base of the chest to its top."""
    hounsfield = {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU"}
    shared = {"WindowCenter": 40, "WindowWidth": 400, "FrameOfReferenceUID": f"{UID}.1", "PixelSpacing": [2.5, 2.5]}
    return [
        dicom(
            values,
            **hounsfield
            | shared
            | STUDY
            | {
                "SOPInstanceUID": f"{UID}.2.{index + 1}",
                "InstanceNumber": count - index,
                "ImagePositionPatient": [-80, -80, 5 * index],
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            }
            | attributes,
        )
        for index, values in enumerate(chest_ct_slices(count, side)[::-1])
    ]


def draw_ellipse(
    values: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    cx: float,
    cy: float,
    wide: float,
    high: float,
    turn: float,
    hounsfield: float,
) -> None:
    """Set `values` to `hounsfield` in an ellipse of half axes `wide` and `high`, turned by `turn` degrees."""
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    along, across = (x - cx) * cos + (y - cy) * sin, (y - cy) * cos - (x - cx) * sin
    values[(along / wide) ** 2 + (across / high) ** 2 < 1] = hounsfield


def _ribs(values: np.ndarray, x: np.ndarray, y: np.ndarray, size: float = 1) -> None:
    for angle, tilt in _RIBS:
        at = np.deg2rad(angle)
        cx, cy = 0.785 * size * np.cos(at), size * (0.515 * np.sin(at) - 0.005)
        draw_ellipse(values, x, y, cx, cy, 0.030, 0.10, angle - tilt, BONE)
        draw_ellipse(values, x, y, cx, cy, 0.013, 0.08, angle - tilt, MARROW)


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    reach = int(3 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        values = np.apply_along_axis(np.convolve, axis, values, kernel, mode="same")
    return values


def _vessels(values: np.ndarray, x: np.ndarray, y: np.ndarray, chance: np.random.Generator) -> None:
    """Draw dots in the lungs only, thicker near their roots."""
    lungs = values == LUNG
    for _ in range(190):
        side = chance.choice((-1, 1))
        away = chance.beta(1.2, 2.0)
        at = chance.uniform(-1.3, 1.3)
        cx, cy = side * (0.14 + 0.55 * away * np.cos(at)), 0.42 * away * np.sin(at) * 1.2
        thick = 0.019 * (1 - away) + 0.004
        dots = np.full_like(values, AIR)
        draw_ellipse(dots, x, y, cx, cy, thick * chance.uniform(1, 2.2), thick, chance.uniform(0, 180), 1)
        values[lungs & (dots == 1)] = 20 - 500 * away
