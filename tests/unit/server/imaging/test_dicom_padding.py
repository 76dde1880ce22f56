"""Pixels without data in DICOM files, and stored bits at unusual places."""

from typing import Any

import numpy as np
import pytest

from tests.support.images.dicom_files import dicom, look_up_table
from tests.unit.server.conftest import Read

SIDE = 32
HU = np.tile(np.linspace(-1024, 1023, SIDE).astype(np.int16), (SIDE, 1))
LINEAR = np.rint((HU[0].astype(float) + 1024) / 2047 * 255)


def body(read: Read, data: bytes) -> np.ndarray:
    return np.asarray(read(data).image).astype(int)[SIDE // 2, :, 0]


def with_rim(value: int, *, noise: int = 0) -> np.ndarray:
    values = HU.copy()
    values[:8] = value + np.random.default_rng(0).integers(-noise, noise + 1, (8, SIDE))
    return values


@pytest.mark.parametrize(
    ("values", "attributes"),
    [
        (with_rim(-2000), {"PixelPaddingValue": -2000}),
        (with_rim(-2000, noise=5), {"PixelPaddingValue": -2010, "PixelPaddingRangeLimit": -1990}),
        (with_rim(-2000, noise=3), {"PixelPaddingValue": -2000, "LossyImageCompression": "01"}),
        (with_rim(-3024), {"RescaleSlope": 1, "RescaleIntercept": 0}),
        (with_rim(-2000), {"PixelPaddingValue": 4096 - 2000, "BitsStored": 12, "HighBit": 11}),
    ],
    ids=["declared", "range", "blurred", "undeclared", "declared without its sign"],
)
def test_a_rim_without_data_does_not_darken_the_image(
    read: Read, values: np.ndarray, attributes: dict[str, Any]
) -> None:
    assert np.abs(body(read, dicom(values, **attributes)) - LINEAR).max() <= 1


def test_an_image_that_lies_close_to_padding_everywhere_is_shown(read: Read) -> None:
    values = HU.copy()
    values[:, ::8] = -2000
    found = body(read, dicom(values, PixelPaddingValue=-2000, LossyImageCompression="01"))
    low, high = values[:, 1].min(), HU.max()
    expected = np.where(np.arange(SIDE) % 8, (HU[0].astype(float) - low) / (high - low) * 255, 0)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(
    ("attributes", "shade"),
    [
        ({}, 0),
        ({"WindowCenter": 128, "WindowWidth": 256}, 0),
        ({"PhotometricInterpretation": "MONOCHROME1"}, 55),
        ({"VOILUTSequence": [look_up_table(list(range(256)), bits=8)]}, 0),
    ],
    ids=["as stored", "window", "padding is white", "look-up table"],
)
def test_padding_darker_than_the_data_stays_as_dark(read: Read, attributes: dict[str, Any], shade: int) -> None:
    values = np.tile(np.linspace(100, 200, SIDE).astype(np.uint8), (SIDE, 1))
    values[:8] = 0
    image = np.asarray(read(dicom(values, PixelPaddingValue=0, Modality="US", **attributes)).image)
    assert (image[2] == shade).all()


@pytest.mark.parametrize("high_bit", [12, 13, 15])
def test_stored_bits_are_found_at_their_high_bit(read: Read, high_bit: int) -> None:
    values = (HU.astype(np.int32) + 1024).astype(np.uint16) << (high_bit - 11)
    data = dicom(values, BitsStored=12, HighBit=high_bit)
    assert np.abs(body(read, data) - LINEAR).max() <= 1
    assert "high_bit" in read(data).rendering.steps


@pytest.mark.parametrize(
    ("low", "padding"), [(0, 65535), (0, 63536), (-2048, -32768), (-2048, 4200)], ids=lambda value: f"{value:+}"
)
def test_padding_that_no_pixel_can_hold_is_no_other_value(read: Read, low: int, padding: int) -> None:
    values = np.tile(np.linspace(low, low + 4095, SIDE).round(), (SIDE, 1))
    values[:, 3] = (padding - low) % 4096 + low
    kind: Any = np.int16 if low else np.uint16
    described = {"PixelPaddingValue": padding, "WindowCenter": low + 2048, "WindowWidth": 4096}
    found = body(read, dicom(values.astype(kind), BitsStored=12, HighBit=11, Modality="MR", **described))
    assert np.abs(found - (values[0] - low) * (255 / 4095)).max() <= 1


def test_padding_in_all_bits_allocated_is_padding(read: Read) -> None:
    values = np.tile(np.linspace(0, 4000, SIDE).round().astype(np.uint16), (SIDE, 1))
    values[:8] = 0xF830
    described = {"PixelPaddingValue": 0xF830, "BitsStored": 12, "HighBit": 11, "Modality": "MR"}
    found = read(dicom(values, WindowCenter=2000, WindowWidth=4001, **described))
    assert "unused_bits" in found.rendering.steps
    assert (np.asarray(found.image)[:8] == 0).all()
    assert np.abs(np.asarray(found.image).astype(int)[SIDE // 2, :, 0] - values[-1] * (255 / 4000)).max() <= 1
