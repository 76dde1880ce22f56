"""DICOM images of one bit a pixel, in every byte order, and of several frames that do not end at a byte."""

import numpy as np
import pytest
from pydicom.uid import RLELossless

from medmoe.server.errors import UnreadableImage, UnsupportedImage
from medmoe.server.imaging.formats.reader import ImageReader
from medmoe.server.schemas.images import ImageFields
from tests.support.images.dicom_elements import BIG_ENDIAN, EXPLICIT, element, file, fragments, run_length
from tests.unit.server.conftest import Read, decoder_config

ROWS, COLUMNS = 21, 13
FRAMES = np.stack([np.add.outer(np.arange(ROWS), np.arange(COLUMNS)) % (3 + frame) == 0 for frame in range(3)])


def packed(bits: np.ndarray) -> bytes:
    return np.packbits(bits.ravel(), bitorder="little").tobytes()


def swapped(data: bytes) -> bytes:
    return np.frombuffer(data, np.uint8).reshape(-1, 2)[:, ::-1].tobytes()


def image(value: bytes, *, frames: int, vr: str = "OB", syntax: str = EXPLICIT) -> bytes:
    head = file(None, {0x00280008: ("IS", str(frames))}, syntax=syntax, bits=1, shape=(ROWS, COLUMNS))
    return head + element(0x7FE00010, vr, value, syntax=syntax)


CONTIGUOUS = packed(FRAMES) + b"\0"
FROM_A_BYTE = b"".join(map(packed, FRAMES)) + b"\0"


@pytest.mark.parametrize("frame", [0, 1, 2])
@pytest.mark.parametrize(
    "data",
    [
        image(CONTIGUOUS, frames=3),
        image(FROM_A_BYTE, frames=3),
        image(CONTIGUOUS, frames=3, syntax=BIG_ENDIAN),
        image(swapped(CONTIGUOUS), frames=3, vr="OW", syntax=BIG_ENDIAN),
    ],
    ids=["without gaps", "each from a byte on", "big-endian bytes", "big-endian words"],
)
def test_frames_of_bits(data: bytes, frame: int) -> None:
    found = ImageReader(decoder_config()).read(data, ImageFields(frame=frame), view="frame")
    assert np.array_equal(np.asarray(found.image)[..., 0], FRAMES[frame] * 255)


@pytest.mark.parametrize("segment", [packed(FRAMES[0]), FRAMES[0].tobytes()], ids=["bits", "bytes"])
def test_run_lengths_of_bits_or_of_a_byte_for_each(segment: bytes) -> None:
    data = file(fragments(run_length([segment])), syntax=RLELossless, bits=1, shape=(ROWS, COLUMNS))
    found = ImageReader(decoder_config()).read(data, ImageFields(), view="frame")
    assert np.array_equal(np.asarray(found.image)[..., 0], FRAMES[0] * 255)


def test_frames_of_bits_that_end_early_are_refused(read: Read) -> None:
    with pytest.raises(UnreadableImage, match="3 frames and the file holds 2"):
        read(image(CONTIGUOUS[:-4], frames=3))


def test_colours_of_one_bit_are_refused(read: Read) -> None:
    with pytest.raises(UnsupportedImage, match="bits a sample"):
        read(file(np.zeros(200, np.uint8), colour="RGB", bits=1, shape=(ROWS, COLUMNS)))
