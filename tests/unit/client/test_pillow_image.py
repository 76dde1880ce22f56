"""A Pillow image that was opened from a file is sent as the service sees the file."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL.PngImagePlugin import PngInfo

from medmoe.client.errors import InvalidInput
from medmoe.client.images.image import Image
from medmoe.model.colour_profile import SRGB_WHITE, plain_profile
from medmoe.model.image_formats.raster import read_raster
from medmoe.model.image_formats.signature import raster_format
from tests.support.images.hostile_images import encoded
from tests.support.images.odd_files import matrix_profile, png
from tests.support.images.tiff_files import tiff
from tests.unit.server.conftest import decoder_config

NOISE = np.random.default_rng(0).integers(0, 256, (16, 20, 4), dtype=np.uint8)
COLOURS = PIL.Image.fromarray(NOISE[..., :3])
GREY = COLOURS.convert("L")
GREY_PROFILE = plain_profile(1.8, white=SRGB_WHITE, primaries=None)
COLOUR_PROFILE = matrix_profile(gamma=1.8, swapped=True)
ADOBE = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)


def with_gamma(image: PIL.Image.Image, *, primaries: bool = False, **options: Any) -> bytes:
    chunks = PngInfo()
    chunks.add(b"gAMA", struct.pack(">I", 100_000))
    if primaries:
        chunks.add(b"cHRM", struct.pack(">8I", *ADOBE))
    return encoded(image, "PNG", pnginfo=chunks, **options)


FILES: dict[str, bytes] = {
    "gamma of grey": with_gamma(GREY),
    "gamma of colours": with_gamma(COLOURS),
    "gamma of a palette": with_gamma(COLOURS.quantize(32)),
    "primaries": with_gamma(COLOURS, primaries=True),
    "profile before gamma": with_gamma(COLOURS, icc_profile=COLOUR_PROFILE),
    "grey with alpha": encoded(PIL.Image.fromarray(NOISE[..., 2:]), "PNG", icc_profile=GREY_PROFILE),
    "transparent shade": encoded(GREY, "PNG", transparency=GREY.getpixel((0, 0)), icc_profile=GREY_PROFILE),
    "transparent colour": encoded(COLOURS, "PNG", transparency=COLOURS.getpixel((0, 0)), icc_profile=COLOUR_PROFILE),
    **{
        f"transparent shade of {bits} bits": png(NOISE[..., 0] >> (8 - bits), bits=bits, colour=0, key=(2**bits - 1,))
        for bits in (2, 4)
    },
    **{f"wide pixels, {kind}": encoded(COLOURS, kind, dpi=(100, 200)) for kind in ("PNG", "JPEG", "TIFF", "BMP")},
    "wide pixels, several images": encoded(COLOURS, "MPO", dpi=(100, 200), save_all=True, append_images=[COLOURS]),
    "high pixels": encoded(COLOURS, "PNG", dpi=(300, 100)),
    "wide pixels, sideways": encoded(COLOURS, "TIFF", dpi=(100, 200), tiffinfo={274: 6}),
    "white is zero": tiff(NOISE[..., 0].astype(np.uint16) * 200, photometric=0),
    "white is zero, sideways": tiff(NOISE[..., 0].astype(np.uint16) * 200, photometric=0, tags={274: [6]}),
}


def seen(data: bytes) -> np.ndarray:
    kind = raster_format(data)
    assert kind is not None
    return np.asarray(read_raster(data, kind, limits=decoder_config().limits).image, int)


@pytest.mark.parametrize("name", list(FILES))
def test_an_opened_image_and_its_file_are_the_same_pixels(name: str) -> None:
    data = FILES[name]
    expected = seen(data)
    with PIL.Image.open(io.BytesIO(data)) as image:
        plain = np.asarray(image.convert("RGB"), int)
    assert plain.shape != expected.shape or np.abs(plain - expected).max() > 20
    with PIL.Image.open(io.BytesIO(data)) as image:
        sent = seen(Image.of(image).data)
    assert sent.shape == expected.shape
    assert np.abs(sent - expected).max() <= 1


@pytest.mark.parametrize(
    "made", [lambda image: image.resize((40, 16)), lambda image: image.crop((0, 0, 12, 16))], ids=["resized", "cropped"]
)
def test_an_image_that_was_made_from_a_files_has_square_pixels(
    made: Callable[[PIL.Image.Image], PIL.Image.Image],
) -> None:
    with PIL.Image.open(io.BytesIO(FILES["wide pixels, PNG"])) as image:
        changed = made(image)
    assert np.array_equal(seen(Image.of(changed).data), np.asarray(changed, int))


@pytest.mark.parametrize("mode", ["F", "CMYK", "I;16B"])
def test_a_mode_that_png_has_not_is_named_with_a_way_that_loses_nothing(mode: str) -> None:
    with pytest.raises(InvalidInput, match=f"mode {mode} .* give its file"):
        Image.of(PIL.Image.new(mode, (4, 4)))


@pytest.mark.parametrize(("kind", "samples"), [("PNG", 2), ("PNG", 3), ("PNG", 4), ("TIFF", 3), ("TIFF", 4)], ids=str)
def test_a_picture_in_the_low_bytes_that_pillow_drops_is_refused(kind: str, samples: int) -> None:
    values = NOISE[..., :samples].astype(np.uint16) << 4
    if samples in (2, 4):
        values[..., -1] = 65_535
    data = png_of_16_bits(values) if kind == "PNG" else tiff(values, tags={338: [2]} if samples == 4 else {})
    assert seen(data).max() > 200
    with PIL.Image.open(io.BytesIO(data)) as image, pytest.raises(InvalidInput, match="give the file itself"):
        Image.of(image)


def test_colours_that_use_16_bits_are_sent() -> None:
    data = png_of_16_bits(NOISE[..., :3].astype(np.uint16) * 257)
    with PIL.Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(seen(Image.of(image).data), seen(data))


def png_of_16_bits(values: np.ndarray) -> bytes:
    rows, columns, samples = values.shape
    header = struct.pack(">IIBBBBB", columns, rows, 16, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
