"""Files whose resolutions across and down differ: their pixels are made square, or the steps say that they are not."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmoe.model.image_formats.raster import read_raster
from medmoe.model.image_formats.signature import raster_format
from tests.support.images.hostile_images import encoded
from tests.support.images.odd_files import chunk, png
from tests.support.images.tiff_files import tiff
from tests.unit.server.conftest import decoder_config

GREY = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (24, 1))
"""24 rows and 48 columns: square once its pixels are twice as high as wide."""
IMAGE = Image.fromarray(GREY)
DEEP = GREY.astype(np.uint16) * 256
KINDS = ("PNG", "PNG without unit", "JPEG", "JPEG of Exif", "TIFF", "deep TIFF", "BMP", "WEBP of Exif")


def stated(kind: str, across: int, down: int, *, orientation: int = 1) -> bytes:
    """Return a file with these numbers of pixels in a unit."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind.endswith("Exif"):
        exif[0x011A], exif[0x011B] = across, down
    elif kind == "PNG without unit":
        return png(GREY, bits=8, colour=0, before=chunk(b"pHYs", struct.pack(">IIB", across, down, 0)))
    elif kind == "deep TIFF":
        data = tiff(DEEP, tags={274: [orientation], 282: [0], 283: [0]})
        return with_rationals(data, across, down)
    options: dict[str, Any] = {} if kind.endswith("Exif") else {"dpi": (across, down)}
    if kind != "BMP":
        options["exif"] = exif
    return encoded(IMAGE.convert("RGB"), kind.split()[0], **options)


def with_rationals(data: bytes, across: int, down: int) -> bytes:
    """Return a little-endian TIFF of two resolutions as rationals, behind its end."""
    changed = bytearray(data)
    for tag, value in ((282, across), (283, down)):
        at = changed.index(struct.pack("<HHI", tag, 4, 1))
        changed[at : at + 12] = struct.pack("<HHII", tag, 5, 1, len(changed))
        changed += struct.pack("<II", value, 1)
    return bytes(changed)


def shown(data: bytes) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Return width and height as they are shown, and the steps."""
    kind = raster_format(data)
    assert kind is not None
    found = read_raster(data, kind, limits=decoder_config().limits)
    return found.image.size, found.steps


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_made_square(kind: str) -> None:
    size, steps = shown(stated(kind, 400, 200))
    assert size == (48, 48)
    assert steps[-1] == "pixel_aspect"
    size, _ = shown(stated(kind, 200, 400))
    assert size == (96, 24)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resolutions", [(72, 72), (3780, 3779), (0, 0), (0, 300), (1, 1)])
def test_resolutions_that_say_nothing_change_nothing(kind: str, resolutions: tuple[int, int]) -> None:
    size, steps = shown(stated(kind, *resolutions))
    assert size == (48, 24)
    assert not [step for step in steps if step.startswith("pixel_aspect")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_ratio_that_no_image_has_is_named_and_not_followed(kind: str) -> None:
    size, steps = shown(stated(kind, 3000, 10))
    assert size == (48, 24)
    assert steps[-1] == "pixel_aspect_ignored"


@pytest.mark.parametrize("kind", ["JPEG", "JPEG of Exif", "TIFF", "deep TIFF", "WEBP of Exif"])
def test_resolutions_are_of_the_image_before_it_is_turned_upright(kind: str) -> None:
    size, steps = shown(stated(kind, 400, 200, orientation=6))
    assert size == (48, 48)
    assert {"orientation", "pixel_aspect"} <= set(steps)


def test_a_jpeg_of_a_ratio_without_unit_is_named_for_its_writers_mean_either_way() -> None:
    data = bytearray(stated("JPEG", 4, 3))
    data[13] = 0
    size, steps = shown(bytes(data))
    assert size == (48, 24)
    assert steps == ("pixel_aspect_ignored",)


def test_two_ratios_that_contradict_each_other_are_named() -> None:
    data = stated("JPEG of Exif", 400, 200)
    assert shown(data)[1] == ("pixel_aspect",)
    jfif = b"\xff\xe0\0\x10JFIF\0\1\1\1" + struct.pack(">HHH", 96, 96, 0)
    at = data.index(b"\xff\xe1")
    assert shown(data[:2] + jfif + data[at:])[1] == ("pixel_aspect_ignored",)
