"""Overlays in bits of the pixels that hold no value (PS3.3 C.9.2, retired)."""

import io

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from medmoe.client.errors import InvalidInput
from medmoe.client.images.dicom import pixels_only
from tests.support.images.dicom_files import dicom
from tests.unit.server.conftest import Read

ROWS, COLUMNS = np.mgrid[:48, :64]
FIELD = (ROWS - 24) ** 2 + (COLUMNS - 32) ** 2 < 18**2
VALUES = np.where(FIELD, 2600 + 4 * COLUMNS, 0)
"""A bright collimated field."""


def overlaid(values: np.ndarray, *, bit: int | None, shift: int = 0, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return a file of 12-bit `values` from bit `shift` on, with an overlay outside the field that lies in `bit`."""
    signed = int(values.min() < 0)
    cells = ((values & 0xFFF) << shift).astype(np.uint16)
    bits = {"BitsStored": 12, "HighBit": 11 + shift, "PixelRepresentation": signed}
    window = {"WindowCenter": 0 if signed else 2048, "WindowWidth": 4096, "Modality": "DX"}
    if bit is None:
        return dicom(cells, syntax=syntax, **bits, **window)
    cells |= (~FIELD).astype(np.uint16) << bit
    dataset = dcmread(io.BytesIO(dicom(cells, syntax=syntax, **bits, **window)))
    for element, value in {0x10: 48, 0x11: 64, 0x100: 16, 0x102: bit}.items():
        dataset.add_new((0x6000, element), "US", value)
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def compressed(syntax: str) -> bytes:
    dataset = dcmread(io.BytesIO(overlaid(VALUES, bit=12)))
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.compress(syntax, encoding_plugin="pylibjpeg")
    dataset.BitsStored, dataset.HighBit = 12, 11
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (overlaid(VALUES, bit=12), overlaid(VALUES, bit=None)),
        (overlaid(VALUES, bit=15), overlaid(VALUES, bit=None)),
        (overlaid(VALUES, bit=12, syntax=ExplicitVRBigEndian), overlaid(VALUES, bit=None)),
        (overlaid(VALUES - 2048, bit=12), overlaid(VALUES - 2048, bit=None)),
        (overlaid(VALUES // 16, bit=0, shift=4), overlaid(VALUES // 16, bit=None)),
        (compressed(RLELossless), overlaid(VALUES, bit=None)),
        (compressed(JPEG2000Lossless), overlaid(VALUES, bit=None)),
    ],
    ids=["bit 12", "bit 15", "big endian", "signed", "low bit", "run length", "JPEG 2000"],
)
def test_a_declared_overlay_is_no_part_of_the_values(read: Read, data: bytes, plain: bytes) -> None:
    found = read(data)
    assert found.pixels == read(plain).pixels
    assert "overlay_ignored" in found.rendering.steps


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(("bit", "shift"), [(12, 0), (0, 4)])
def test_the_client_removes_such_an_overlay(read: Read, syntax: str, bit: int, shift: int) -> None:
    data = overlaid(VALUES, bit=bit, shift=shift, syntax=syntax)
    bare = pixels_only(data).data
    cells = np.frombuffer(dcmread(io.BytesIO(bare)).PixelData, ">u2" if syntax == ExplicitVRBigEndian else "<u2")
    assert np.array_equal(cells.reshape(48, 64), VALUES << shift)
    assert read(bare).pixels == read(data).pixels


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_the_client_sends_no_such_overlay_in_compressed_pixels(syntax: str) -> None:
    with pytest.raises(InvalidInput, match="overlay"):
        pixels_only(compressed(syntax))


@pytest.mark.parametrize("bit", [11, None])
def test_an_overlay_that_claims_bits_of_the_values_or_none_removes_none(read: Read, bit: int | None) -> None:
    dataset = dcmread(io.BytesIO(overlaid(VALUES, bit=None)))
    dataset.add_new((0x6000, 0x102), "US", bit)
    file = io.BytesIO()
    dataset.save_as(file)
    plain = read(overlaid(VALUES, bit=None)).pixels
    assert read(file.getvalue()).pixels == read(pixels_only(file.getvalue()).data).pixels == plain
