"""Signs and unused bits of DICOM values beside a flat background, whose rim is as large a jump as a wrong sign's."""

from typing import Any

import jpeg_ls
import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from medmoe.server.errors import UnreadableImage
from tests.support.images.dicom_files import dicom
from tests.unit.server.conftest import Read

ROWS, COLUMNS = np.mgrid[:64, :64]
FIELD = (ROWS - 32) ** 2 + (COLUMNS - 32) ** 2 < 26**2
WINDOW: dict[str, Any] = {"Modality": "MR", "WindowCenter": 0, "WindowWidth": 4096}


def shown(read: Read, cells: np.ndarray, *, syntax: str, **attributes: Any) -> np.ndarray:
    """Return the shades of unsigned `cells` of which 12 bits are stored."""
    stream = {
        JPEGLSLossless: lambda: bytes(jpeg_ls.encode_array(cells)),
        JPEG2000Lossless: lambda: encode_array(cells, bits_stored=16, photometric_interpretation=2, codec_format=0),
    }.get(syntax)
    data = dicom(
        cells, syntax=syntax, frames=[stream()] if stream else None, BitsStored=12, HighBit=11, **WINDOW | attributes
    )
    return np.asarray(read(data).image).astype(int)[..., 0]


def expected(read: Read, values: np.ndarray, **attributes: Any) -> np.ndarray:
    return np.asarray(read(dicom(values.astype(np.int16), **WINDOW | attributes)).image).astype(int)[..., 0]


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, ExplicitVRLittleEndian])
@pytest.mark.parametrize("background", [-2048, -2000, 2047])
def test_a_signed_image_on_a_flat_background_keeps_its_sign(read: Read, syntax: str, background: int) -> None:
    tissue = 20 * COLUMNS if background < 0 else -20 * COLUMNS - 1
    values = np.where(FIELD, tissue, background)
    found = shown(read, (values & 0xFFF).astype(np.uint16), syntax=syntax, PixelRepresentation=1)
    assert np.array_equal(found, expected(read, values))


def test_a_noisy_background_changes_no_sign(read: Read) -> None:
    noise = np.random.default_rng(0).normal(0, 3, FIELD.shape).round().astype(int)
    for background in (-2040, 2040):
        tissue = (20 if background < 0 else -20) * COLUMNS + noise
        values = np.where(FIELD, tissue, np.clip(background + noise, -2048, 2047))
        found = shown(read, (values & 0xFFF).astype(np.uint16), syntax=JPEGLSLossless, PixelRepresentation=1)
        assert np.array_equal(found, expected(read, values))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, ExplicitVRLittleEndian])
def test_bits_above_the_values_are_unused_outside_the_field(read: Read, syntax: str) -> None:
    values = np.where(FIELD, 2600 + 4 * COLUMNS, 0)
    window = {"WindowCenter": 2048}
    found = shown(read, np.where(FIELD, values, 0x1000).astype(np.uint16), syntax=syntax, **window)
    assert np.array_equal(found, expected(read, values, **window))


def test_a_sign_that_is_not_told_is_asked_for_where_it_matters(read: Read) -> None:
    untold: dict[str, Any] = {"syntax": ExplicitVRLittleEndian, "PixelRepresentation": None}
    values = 30 * COLUMNS + ROWS
    assert np.array_equal(shown(read, values.astype(np.uint16), **untold), expected(read, values))
    with pytest.raises(UnreadableImage, match="lacks PixelRepresentation"):
        shown(read, ((values - 1000) & 0xFFF).astype(np.uint16), **untold)


def test_text_at_the_largest_value_changes_no_sign(read: Read) -> None:
    noise = np.random.default_rng(0).integers(0, 8, FIELD.shape)
    values = np.where((ROWS % 16 < 2) | (COLUMNS % 16 == 5), 2047, -2048 + noise)
    found = shown(read, (values & 0xFFF).astype(np.uint16), syntax=JPEGLSLossless, PixelRepresentation=1)
    assert np.array_equal(found, expected(read, values))


def test_values_of_8_bits_have_no_sign_unless_it_is_told(read: Read) -> None:
    values = np.tile(np.array([3, 8, 4, 9, 5, 240, 250, 238], np.uint8), (64, 8))
    told, untold = (
        np.asarray(read(dicom(values, Modality="US", PixelRepresentation=sign)).image) for sign in (0, None)
    )
    assert np.array_equal(told, untold)
