"""Compressed frames tell their colours, bits and components themselves; what a decoder would show wrong is refused."""

import struct
from collections.abc import Callable

import jpeg_ls
import numpy as np
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from medmoe.server.errors import UnreadableImage, UnsupportedImage
from tests.support.images.dicom_elements import file, fragments
from tests.support.images.hostile_images import encoded
from tests.support.images.lossless_jpeg import lossless_jpeg
from tests.support.images.subsampled_jpeg_2000 import COLOURS, HALF_COLUMNS, HALF_COLUMNS_AND_ROWS
from tests.unit.server.conftest import Read

SIDE = 32
RAMP = np.tile(np.arange(SIDE) * 8, (SIDE, 1))
BOX = 8
"""Bytes of a JP2 box before its content."""


def shown(read: Read, data: bytes) -> np.ndarray:
    return np.asarray(read(data, config={"size": SIDE}).image).astype(int)


def colours(stream: bytes, *, said: str = "RGB", syntax: str = JPEG2000Lossless) -> bytes:
    return file(fragments(stream), syntax=syntax, colour=said, bits=8, shape=(SIDE, SIDE))


@pytest.mark.parametrize("said", ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT"])
@pytest.mark.parametrize("stream", [HALF_COLUMNS, HALF_COLUMNS_AND_ROWS], ids=["4:2:2", "4:2:0"])
def test_subsampled_jpeg_2000_is_converted_once(read: Read, stream: bytes, said: str) -> None:
    assert np.abs(shown(read, colours(stream, said=said, syntax=JPEG2000)) - COLOURS).max() <= 24


@pytest.mark.parametrize("said", ["RGB", "YBR_FULL"])
def test_a_jp2_frame_that_says_that_it_is_ycbcr_is_converted_once(read: Read, said: str) -> None:
    stream = encoded(Image.fromarray(COLOURS).convert("YCbCr"), "JPEG2000")
    assert np.abs(shown(read, colours(stream, said=said)) - COLOURS).max() <= 4


@pytest.mark.parametrize("said", ["RGB", "YBR_RCT", "YBR_FULL"])
@pytest.mark.parametrize("transform", [1, 2, 3])
def test_a_colour_transform_of_jpeg_ls_tells_rgb(read: Read, transform: int, said: str) -> None:
    red, green, blue = (COLOURS[..., at].astype(int) for at in range(3))
    over_red, over_blue = red - green + 128, blue - green + 128
    coded = {
        1: (over_red, green, over_blue),
        2: (over_red, green, blue - ((red + green) >> 1) + 128),
        3: (green + ((over_blue % 256 + over_red % 256) >> 2) - 64, over_blue, over_red),
    }[transform]
    stream = bytes(jpeg_ls.encode_array((np.stack(coded, axis=-1) % 256).astype(np.uint8), interleave_mode=2))
    marked = stream[:2] + b"\xff\xe8\0\x07mrfx" + bytes([transform]) + stream[2:]
    assert np.array_equal(shown(read, colours(marked, said=said, syntax=JPEGLSLossless)), COLOURS)


JFIF = b"\xff\xe0\0\x10JFIF\0\1\2\0\0\1\0\1\0\0"
ADOBE_RGB = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"


@pytest.mark.parametrize("said", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("factor", [1, 16, 257])
@pytest.mark.parametrize("marker", [JFIF, ADOBE_RGB], ids=["JFIF", "Adobe RGB"])
def test_a_lossless_jpeg_that_tells_its_colours_is_believed(read: Read, marker: bytes, factor: int, said: str) -> None:
    values = np.asarray(Image.fromarray(COLOURS).convert("YCbCr")) if marker == JFIF else COLOURS
    bits = 8 if factor == 1 else 16
    stream = lossless_jpeg(values.astype(np.uint16) * factor, bits=bits)
    stream = stream[:2] + marker + stream[2:]
    data = file(fragments(stream), syntax=JPEGLosslessSV1, colour=said, bits=bits, shape=(SIDE, SIDE))
    assert np.abs(shown(read, data) - COLOURS).max() <= 4


def jp2_with(box: bytes, values: np.ndarray) -> bytes:
    """Return a JP2 file with a further box at the end of its header."""
    stream = encoded(Image.fromarray(values), "JPEG2000")
    at = stream.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", stream, at)
    return (
        stream[:at] + struct.pack(">I", length + len(box)) + stream[at + 4 : at + length] + box + stream[at + length :]
    )


def with_components(change: Callable[[int], int], *, which: int) -> bytes:
    """Return a stream whose component `which` announces other bits."""
    stream = bytearray(encode_array(COLOURS, bits_stored=8, use_mct=False))
    stream[42 + 3 * which] = change(stream[42 + 3 * which])
    return bytes(stream)


PALETTE = struct.pack(">I4sHB3B", BOX + 18, b"pclr", 4, 3, 7, 7, 7) + bytes(range(0, 240, 20))
MAPPING = struct.pack(">I4s", BOX + 12, b"cmap") + b"".join(struct.pack(">HBB", 0, 1, at) for at in range(3))


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (with_components(lambda bits: bits - 2, which=1), "RGB"),
        (with_components(lambda bits: bits | 0x80, which=2), "YBR_FULL"),
        (jp2_with(PALETTE + MAPPING, (RAMP // 64).astype(np.uint8)), "MONOCHROME2"),
        (jp2_with(PALETTE + MAPPING, (RAMP // 64).astype(np.uint8)), "PALETTE COLOR"),
    ],
    ids=["fewer bits", "a sign", "grey with a palette of its own", "palette with one of its own"],
)
def test_components_that_a_decoder_shows_wrong_are_refused_by_name(read: Read, stream: bytes, said: str) -> None:
    with pytest.raises(UnsupportedImage, match=r"JPEG 2000.*export it as uncompressed"):
        read(colours(stream, said=said))


def test_the_size_of_a_jp2_frame_is_not_that_of_a_code_stream_in_another_box(read: Read) -> None:
    small, large = (encoded(Image.fromarray(np.zeros((side, side), np.uint8)), "JPEG2000") for side in (SIDE, 2 * SIDE))
    told = small[small.index(b"jp2c") + 4 :]
    at = large.index(b"jp2c") - 4
    disguised = large[:at] + struct.pack(">I4s", BOX + len(told), b"uuid") + told + large[at:]
    data = file(fragments(disguised), syntax=JPEG2000, bits=8, shape=(SIDE, SIDE))
    with pytest.raises(UnreadableImage, match="different sizes"):
        read(data)


def test_channels_of_a_jp2_frame_are_shown_in_their_order(read: Read) -> None:
    order = struct.pack(">I4sH9H", BOX + 20, b"cdef", 3, 0, 0, 3, 1, 0, 2, 2, 0, 1)
    stream = jp2_with(order, np.ascontiguousarray(COLOURS[..., ::-1]))
    assert np.array_equal(shown(read, colours(stream)), COLOURS)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("moved", [True, False], ids=["at the high bit", "moved to the lowest"])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_values_of_a_stream_lie_at_the_high_bit(read: Read, syntax: str, moved: bool, signed: bool) -> None:
    low = -1000 if signed else 0
    cells = ((RAMP * 8 + low) & 0xFFF).astype(np.uint16) << (4 if moved else 0)
    bits = 16 if moved else 12
    stream = {
        JPEG2000Lossless: lambda: bytes(encode_array(cells, bits_stored=bits)),
        JPEGLSLossless: lambda: bytes(
            jpeg_ls.encode_buffer(cells.tobytes(), rows=SIDE, columns=SIDE, samples_per_pixel=1, bits_stored=bits)
        ),
        JPEGLosslessSV1: lambda: lossless_jpeg(cells, bits=bits),
    }[syntax]()
    window = {0x00281050: ("DS", str(992 + low)), 0x00281051: ("DS", "1985")}
    data = file(
        fragments(stream),
        {0x00280102: ("US", [15]), **window},
        syntax=syntax,
        stored=12,
        signed=signed,
        shape=(SIDE, SIDE),
    )
    assert np.abs(shown(read, data) - (RAMP * (255 / 248))[..., None]).max() <= 1
