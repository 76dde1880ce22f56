"""DICOM frames whose code stream announces a size that is the DICOM header's, and not that of the coded data."""

import struct

import jpeg_ls
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGLSLossless

from medmoe.server.errors import UnreadableImage
from tests.support.images.dicom_elements import file, fragments
from tests.support.images.hostile_images import encoded
from tests.unit.server.conftest import Read

SIDE = 256
NOISE = np.random.default_rng(0).normal(0, 12, (SIDE, SIDE))
GREY = (np.add.outer(np.arange(SIDE), np.arange(SIDE)) / 2 + NOISE).clip(0, 255).astype(np.uint8)
SIZES = [(SIDE - 1, SIDE), (SIDE - 16, SIDE), (SIDE // 2, SIDE), (SIDE, SIDE - 16), (SIDE + 64, SIDE), (SIDE // 2, 512)]
LOSSY = {"irreversible": True, "quality_mode": "rates", "quality_layers": [10]}


def jpeg_2000(rows: int, columns: int, *, image: Image.Image, **options: object) -> bytes:
    stream = bytearray(encoded(image, "JPEG2000", no_jp2=True, **options))
    at = stream.index(b"\xff\x51") + 6
    for place in (at, at + 16):
        stream[place : place + 8] = struct.pack(">II", columns, rows)
    return bytes(stream)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_jpeg_2000_stream(read: Read, size: tuple[int, int], colours: int) -> None:
    image = Image.fromarray(GREY) if colours == 1 else Image.fromarray(np.dstack([GREY, GREY.T, 255 - GREY]))
    colour = "MONOCHROME2" if colours == 1 else "YBR_RCT"

    def of(rows: int, columns: int) -> bytes:
        stream = jpeg_2000(rows, columns, image=image)
        return file(fragments(stream), syntax=JPEG2000Lossless, shape=(rows, columns), bits=8, colour=colour)

    read(of(SIDE, SIDE))
    with pytest.raises(UnreadableImage, match="another size"):
        read(of(*size))


@pytest.mark.parametrize("size", [(SIDE // 2, SIDE), (SIDE + 64, SIDE), (SIDE, SIDE + 64)], ids=str)
def test_a_lossy_jpeg_2000_stream(read: Read, size: tuple[int, int]) -> None:
    def of(rows: int, columns: int) -> bytes:
        stream = jpeg_2000(rows, columns, image=Image.fromarray(GREY), **LOSSY)
        return file(fragments(stream), syntax=JPEG2000, shape=(rows, columns), bits=8)

    read(of(SIDE, SIDE))
    with pytest.raises(UnreadableImage, match="another size"):
        read(of(*size))


@pytest.mark.parametrize("options", [{}, LOSSY, {"tile_size": (64, 64)}, {"num_resolutions": 1}], ids=str)
@pytest.mark.parametrize("shade", [0, 100, 255])
def test_a_nearly_flat_image_is_whole(read: Read, shade: int, options: dict[str, object]) -> None:
    for side in (17, 200):
        image = Image.new("L", (side, side), shade)
        image.putpixel((3, 5), 90)
        stream = encoded(image, "JPEG2000", no_jp2=True, **options)
        read(file(fragments(stream), syntax=JPEG2000, shape=(side, side), bits=8), allow_uniform=True)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_jpeg_ls_stream(read: Read, size: tuple[int, int]) -> None:
    stream = bytearray(jpeg_ls.encode_array(GREY))
    read(file(fragments(bytes(stream)), syntax=JPEGLSLossless, shape=(SIDE, SIDE), bits=8))
    at = stream.index(b"\xff\xf7")
    stream[at + 5 : at + 9] = struct.pack(">HH", *size)
    with pytest.raises(UnreadableImage, match="damaged"):
        read(file(fragments(bytes(stream)), syntax=JPEGLSLossless, shape=size, bits=8))
