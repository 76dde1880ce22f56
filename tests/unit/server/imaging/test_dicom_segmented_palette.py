"""Segmented palettes of DICOM files (PS3.3 C.7.9.2)."""

from typing import Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from medmoe.server.errors import UnreadableImage
from tests.support.images.dicom_files import dicom
from tests.unit.server.conftest import Read

INDEX = np.tile(np.arange(32), (32, 1))
RISING, FALLING = [0, 1, 0, 1, 31, 248], [0, 1, 248, 1, 31, 0]
"""Segments of 32 entries: one value, then 31 on a line from it to another."""


def coloured(red: list[int], *, bits: int = 8, first: int = 0, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return a file of 32 columns with the values `first` to `first` + 31, green falling and no blue."""
    attributes: dict[str, Any] = {}
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    for colour, segments in {"Red": red, "Green": FALLING, "Blue": [0, 1, 0, 1, 31, 0]}.items():
        data = np.array(segments, "<u2" if bits == 16 else np.uint8).tobytes()
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [32, first, bits]
        words = np.frombuffer(data, "<u2").astype(f"{order}u2")
        attributes[f"Segmented{colour}PaletteColorLookupTableData"] = words.tobytes()
    values = (INDEX + first).astype(np.int16 if first < 0 else np.uint16)
    return dicom(values, syntax=syntax, PhotometricInterpretation="PALETTE COLOR", **attributes)


def row(read: Read, data: bytes) -> np.ndarray:
    return np.asarray(read(data).image).astype(int)[16]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_segments_of_bytes_lie_in_words(read: Read, syntax: str) -> None:
    found = row(read, coloured(RISING, syntax=syntax))
    assert np.array_equal(found[:, 0], np.arange(32) * 8)
    assert np.array_equal(found[:, 1], np.arange(32)[::-1] * 8)


def test_values_far_above_the_first_are_mapped(read: Read) -> None:
    data = coloured(RISING, first=-32768)
    assert np.array_equal(row(read, data)[:, 0], np.arange(32) * 8)
    # 272 above the first value, which 8 bits do not hold: the last entry.
    bright = bytearray(data)
    bright[-64:] = np.full(32, -32768 + 272, "<i2").tobytes()
    assert np.array_equal(np.asarray(read(bytes(bright)).image)[-1, :, 0], np.full(32, 248))


@pytest.mark.parametrize(
    ("bits", "segments"),
    [
        # The line to 128 counts from the value before the copy.
        (8, [0, 1, 0, 1, 15, 120, 0, 1, 0, 2, 1, 3, 0, 0, 0]),
        (16, [0, 1, 0, 1, 15, 120 * 257, 0, 1, 0, 2, 1, 6, 0]),
    ],
)
def test_an_indirect_segment_copies_from_its_byte_on(read: Read, bits: int, segments: list[int]) -> None:
    if bits == 8:
        segments = [*segments, 0]
    data = coloured(segments, bits=bits)
    assert np.array_equal(row(read, data)[:, 0], np.tile(np.arange(16) * 8, 2))


@pytest.mark.parametrize(
    "segments",
    [[1, 31, 248, 0], [0, 1, 0, 1, 30, 240], [0, 1, 0, 2, 1, 1, 0, 0, 0, 0], [0, 1, 0, 7, 31, 248], [0, 40, 1, 2]],
    ids=["line from nowhere", "too few", "copy from within a segment", "unknown", "cut"],
)
def test_segments_that_cannot_be_followed_are_refused(read: Read, segments: list[int]) -> None:
    with pytest.raises(UnreadableImage, match="palette"):
        read(coloured(segments))
