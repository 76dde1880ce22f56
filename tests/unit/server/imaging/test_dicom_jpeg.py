"""JPEG-LS of 2 to 16 bits and JPEG of 12 bits, grey and in colours, become the right shades."""

import jpeg_ls
import numpy as np
import pytest
from pydicom.uid import JPEGExtended12Bit, JPEGLSLossless, JPEGLSNearLossless

from tests.support.images import twelve_bit_jpeg
from tests.support.images.dicom_files import dicom
from tests.unit.server.conftest import Read

SIDE = 64
RAMP = np.tile(np.arange(SIDE), (SIDE, 1))
RGB = np.stack([RAMP * 65, RAMP.T * 65, (RAMP + RAMP.T) * 32], axis=-1)


def jls(values: np.ndarray, bits: int, *, lossy: int = 0) -> bytes:
    rows, columns = values.shape[:2]
    samples = 1 if values.ndim == 2 else 3
    options = {} if samples == 1 else {"planar_configuration": 0}
    return bytes(
        jpeg_ls.encode_pixel_data(
            values.tobytes(), lossy, rows=rows, columns=columns, samples_per_pixel=samples, bits_stored=bits, **options
        )
    )


def shown(read: Read, data: bytes, **fields: object) -> np.ndarray:
    return np.asarray(read(data, config={"size": SIDE}, **fields).image).astype(int)


# An error of 1 is a visible one of few levels.
@pytest.mark.parametrize(
    ("lossy", "bits"), [*((0, bits) for bits in range(2, 17)), *((1, bits) for bits in (5, 8, 12))]
)
def test_jpeg_ls_of_every_number_of_bits(read: Read, bits: int, lossy: int) -> None:
    values = np.rint(RAMP * ((2**bits - 1) / (SIDE - 1))).astype(np.uint8 if bits <= 8 else np.uint16)
    syntax = JPEGLSNearLossless if lossy else JPEGLSLossless
    data = dicom(values, syntax=syntax, frames=[jls(values, bits, lossy=lossy)], BitsStored=bits, HighBit=bits - 1)
    expected = values.astype(float) if bits == 8 else values * (255 / (2**bits - 1))
    assert np.abs(shown(read, data)[..., 0] - expected).max() <= 1 + lossy * 255 * 2 / (2**bits - 1)


def test_jpeg_ls_filled_up_before_its_end_marker(read: Read) -> None:
    values = RAMP.astype(np.uint16) * 60
    frame = jls(values, 12)
    filled = frame.rstrip(b"\0").removesuffix(b"\xff\xd9") + b"\0\xff\xd9"
    described = {"syntax": JPEGLSLossless, "BitsStored": 12, "HighBit": 11}
    assert np.array_equal(
        shown(read, dicom(values, frames=[filled], **described)),
        shown(read, dicom(values, frames=[frame], **described)),
    )


@pytest.mark.parametrize("bits", [7, 8, 12, 16])
def test_jpeg_ls_in_colours(read: Read, bits: int) -> None:
    values = (RGB >> 4 if bits == 8 else RGB >> 5 if bits == 7 else RGB << (bits - 12)).astype(
        np.uint8 if bits <= 8 else np.uint16
    )
    frame = jls(values, bits)
    data = dicom(values, colours=3, syntax=JPEGLSLossless, frames=[frame], BitsStored=bits, HighBit=bits - 1)
    expected = values.astype(int) if bits <= 8 else values >> (bits - 8)
    assert np.abs(shown(read, data) - (expected if bits != 7 else expected * 255 / 127)).max() <= 1


def test_grey_jpeg_of_twelve_bits(read: Read) -> None:
    values = twelve_bit_jpeg.COLOURS[..., 0]
    data = dicom(values, syntax=JPEGExtended12Bit, frames=[twelve_bit_jpeg.GREY], BitsStored=12, HighBit=11)
    image = np.asarray(read(data, config={"size": twelve_bit_jpeg.SIDE}).image).astype(int)
    assert np.abs(image[..., 0] - values * (255 / int(values.max()))).max() <= 3


@pytest.mark.parametrize(
    ("stream", "colour"),
    [
        (twelve_bit_jpeg.RGB, "RGB"),
        (twelve_bit_jpeg.RGB, "YBR_FULL"),
        (twelve_bit_jpeg.YBR, "YBR_FULL"),
        (twelve_bit_jpeg.YBR, "RGB"),
        (twelve_bit_jpeg.SUBSAMPLED, "YBR_FULL_422"),
    ],
    ids=["RGB", "RGB called YCbCr", "YCbCr", "YCbCr called RGB", "subsampled"],
)
def test_colour_jpeg_of_twelve_bits(read: Read, stream: bytes, colour: str) -> None:
    described = {"PhotometricInterpretation": colour, "BitsStored": 12, "HighBit": 11}
    expected = twelve_bit_jpeg.COLOURS
    data = dicom(expected, colours=3, syntax=JPEGExtended12Bit, frames=[stream], **described)
    image = np.asarray(read(data, config={"size": twelve_bit_jpeg.SIDE}).image).astype(int)
    assert np.abs(image - expected / 16).max() <= (4 if stream is not twelve_bit_jpeg.SUBSAMPLED else 12)
