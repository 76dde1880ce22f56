"""PNG samples of every depth with transparency, CMYK JPEG, gamma and ICC profiles become the right sRGB colours."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from medmoe.model.colour_profile import SRGB_WHITE, plain_profile
from medmoe.model.errors import ImageFormatError
from medmoe.model.image_formats.raster import read_raster
from medmoe.model.image_formats.raster_image import RasterImage
from medmoe.model.image_formats.signature import RasterFormat
from tests.support.images.dicom_files import dicom
from tests.support.images.hostile_images import encoded
from tests.support.images.odd_files import (
    COLOUR,
    COLOUR_ALPHA,
    GREY,
    GREY_ALPHA,
    chunk,
    matrix_profile,
    png,
    without_adobe_marker,
)
from tests.support.images.tiff_files import tiff
from tests.unit.server.conftest import Read, decoder_config

SIDE = 32
RAMP = np.linspace(0, 255, SIDE * SIDE).round().astype(np.uint8).reshape(SIDE, SIDE)
RGB = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
RGB[:4] = (255, 0, 255)
ALPHA = np.full((SIDE, SIDE), 255, np.uint8)
ALPHA[:8], ALPHA[8:16] = 0, 128


def shown(data: bytes, kind: RasterFormat = "PNG") -> tuple[np.ndarray, RasterImage]:
    read = read_raster(data, kind, limits=decoder_config().limits)
    return np.asarray(read.image).astype(float), read


def over_black(shades: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.asarray(shades * (alpha[..., None] / 255))


def grey(shades: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(shades, float)[..., None], 3, axis=-1)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_grey_key_is_on_the_scale_of_its_samples(bits: int) -> None:
    samples = RAMP >> (8 - bits)
    key = 0 if bits == 1 else 2**bits - 1
    image, rendering = shown(png(samples, bits=bits, colour=GREY, key=(key,)))
    assert np.array_equal(image, grey(np.where(samples == key, 0, samples * (255 / (2**bits - 1)))))
    assert rendering.steps == ("over_black",)


def test_a_key_in_deep_grey_is_black_and_no_end_of_the_range() -> None:
    samples = np.linspace(1000, 60000, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    samples[:4] = 65535
    image, rendering = shown(png(samples, bits=16, colour=GREY, key=(65535,)))
    low, high = float(samples.min()), float(samples[4:].max())
    expected = grey(np.where(samples == 65535, 0, (samples - low) / (high - low) * 255))
    assert np.abs(image - expected).max() <= 1
    assert rendering.steps == ("stretch", "over_black")


@pytest.mark.parametrize("factor", [16, 257])
def test_a_key_in_deep_colours_is_compared_with_all_bits(factor: int) -> None:
    samples = RGB.astype(np.uint16) * factor
    samples[10, 10] = (255 * factor, 1, 255 * factor)
    hidden = (samples == (255 * factor, 0, 255 * factor)).all(axis=-1)
    image, rendering = shown(png(samples, bits=16, colour=COLOUR, key=(255 * factor, 0, 255 * factor)))
    expected = np.where(hidden[..., None], 0, samples / (255 * factor if factor == 16 else 65535) * 255)
    tolerance = 1.0 if factor == 257 else 1.0 + 255 / 4095 * 16
    assert np.abs(image - expected).max() <= tolerance
    assert rendering.steps == (("low_bits",) if factor == 16 else ()) + ("over_black",)


@pytest.mark.parametrize("factor", [16, 257])
def test_deep_colours_keep_their_alpha(factor: int) -> None:
    samples = np.concatenate([RGB.astype(np.uint16) * factor, ALPHA[..., None].astype(np.uint16) * 257], axis=-1)
    image, _ = shown(png(samples, bits=16, colour=COLOUR_ALPHA))
    shades = RGB * (16 * 255 / 4095) if factor == 16 else RGB
    assert np.abs(image - over_black(shades, ALPHA)).max() <= 1.5


@pytest.mark.parametrize("largest", [4095, 60000])
def test_deep_grey_with_alpha_is_stretched_as_deep_grey_is(largest: int) -> None:
    values = np.linspace(0, largest, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    image, rendering = shown(png(np.stack([values, ALPHA * np.uint16(257)], axis=-1), bits=16, colour=GREY_ALPHA))
    low = float(values[8, 0])
    assert np.abs(image - over_black(grey((values - low) / (largest - low) * 255), ALPHA)).max() <= 1.5
    assert rendering.steps == ("stretch", "over_black")


def cmyk_inks() -> np.ndarray:
    inks = np.zeros((32, 32, 4), np.uint8)
    inks[:16, :16, 0] = inks[:16, 16:, 1] = inks[16:, :16, 2] = 255
    inks[16:, 16:, 3] = 100
    return inks


@pytest.mark.parametrize("transform", [0, 2])
def test_adobe_jpegs_store_inks_inverted(transform: int) -> None:
    inks = cmyk_inks()
    stored = 255 - inks
    if transform:
        stored[..., :3] = np.asarray(Image.fromarray(inks[..., :3].copy()).convert("YCbCr"))
    # Pillow inverts what it saves.
    data = bytearray(encoded(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=100, subsampling=0))
    data[data.index(b"Adobe") + 11] = transform
    image, _ = shown(bytes(data), "JPEG")
    paper = 255.0 - inks
    assert np.abs(image - paper[..., :3] * paper[..., 3:] / 255).max() <= 8


def srgb_of(colours: np.ndarray, gamma: float) -> np.ndarray:
    linear = (colours / 255.0) ** gamma
    return np.asarray(255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


def test_cmyk_jpegs_that_do_not_say_whether_inks_are_inverted_are_refused() -> None:
    with pytest.raises(ImageFormatError, match="Adobe marker"):
        shown(without_adobe_marker(encoded(Image.fromarray(cmyk_inks(), "CMYK"), "JPEG")), "JPEG")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_colours_with_another_profile_are_brought_to_srgb(kind: RasterFormat) -> None:
    data = encoded(
        Image.fromarray(RGB), kind, icc_profile=matrix_profile(gamma=1.8, swapped=True),
        **({"lossless": True} if kind == "WEBP" else {}),
    )  # fmt: skip
    image, rendering = shown(data, kind)
    assert np.abs(image - srgb_of(RGB[..., (1, 0, 2)], 1.8)).max() <= 3
    assert rendering.steps == ("icc_profile",)


def test_a_profile_is_applied_before_transparency_and_to_palettes() -> None:
    profile = matrix_profile(gamma=1.0)
    image, rendering = shown(encoded(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG", icc_profile=profile))
    assert np.abs(image - over_black(srgb_of(RGB, 1.0), ALPHA)).max() <= 3
    assert rendering.steps == ("icc_profile", "over_black")
    palette = Image.fromarray(RGB).quantize(16)
    image, rendering = shown(encoded(palette, "PNG", icc_profile=profile))
    assert np.abs(image - srgb_of(np.asarray(palette.convert("RGB")), 1.0)).max() <= 3
    assert rendering.steps == ("icc_profile",)


def test_a_profile_that_does_not_fit_is_named_and_srgb_changes_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile, steps in ((srgb, ()), (lab, ("icc_profile_ignored",)), (b"no profile", ("icc_profile_ignored",))):
        image, rendering = shown(encoded(Image.fromarray(RGB), "PNG", icc_profile=profile))
        assert np.array_equal(image, RGB)
        assert rendering.steps == steps
    image, rendering = shown(encoded(Image.fromarray(RAMP), "PNG", icc_profile=matrix_profile(gamma=1.8)))
    assert np.array_equal(image, grey(RAMP))
    assert rendering.steps == ("icc_profile_ignored",)


@pytest.mark.parametrize("name", ["GIMP built-in Linear sRGB", "Rec2020-elle-V4-srgbtrc.icc"])
def test_a_profile_that_has_srgb_in_its_name_alone_is_followed(name: str) -> None:
    profile = matrix_profile(gamma=1.0, swapped=True) + name.encode()
    image, rendering = shown(encoded(Image.fromarray(RGB), "PNG", icc_profile=profile))
    assert np.abs(image - srgb_of(RGB[..., (1, 0, 2)], 1.0)).max() <= 3
    assert rendering.steps == ("icc_profile",)


GREY_PROFILE = plain_profile(1.0, white=SRGB_WHITE, primaries=None) or b""


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_grey_with_a_profile_of_grey_is_brought_to_srgb(kind: RasterFormat) -> None:
    data = encoded(
        Image.fromarray(RAMP), kind, icc_profile=GREY_PROFILE, **({"quality": 100} if kind == "JPEG" else {})
    )
    image, rendering = shown(data, kind)
    with Image.open(io.BytesIO(data)) as stored:
        assert np.abs(image - srgb_of(grey(np.asarray(stored)), 1.0)).max() <= 3
    assert rendering.steps == ("icc_profile",)
    alpha = Image.fromarray(np.dstack([RAMP, ALPHA]))
    image, rendering = shown(encoded(alpha, "PNG", icc_profile=GREY_PROFILE))
    assert np.abs(image - over_black(srgb_of(grey(RAMP), 1.0), ALPHA)).max() <= 3
    assert rendering.steps == ("icc_profile", "over_black")


def test_a_profile_says_nothing_of_stretched_values() -> None:
    values = np.linspace(1000, 60000, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    profiled = chunk(b"iCCP", b"x\0\0" + zlib.compress(GREY_PROFILE))
    layered = np.stack([values, np.full_like(values, 65535)], axis=-1)
    for data in (
        png(values, bits=16, colour=GREY, before=profiled),
        png(layered, bits=16, colour=GREY_ALPHA, before=profiled),
    ):
        image, rendering = shown(data)
        assert np.abs(image - grey(np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE))).max() <= 1
        assert rendering.steps[:2] == ("stretch", "icc_profile_ignored")


def test_deep_tiff_colours_are_brought_to_srgb() -> None:
    profile = list(matrix_profile(gamma=1.8, swapped=True))
    data = tiff(RGB.astype(np.uint16) * 257, tags={34675: profile})
    image, rendering = shown(data, "TIFF")
    assert np.abs(image - srgb_of(RGB[..., (1, 0, 2)], 1.8)).max() <= 3
    assert rendering.steps == ("high_byte", "icc_profile")


def gamma(value: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", value))


def primaries(*places: int) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *places))


SRGB_PLACES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
SWAPPED_PLACES = (31270, 32900, 30000, 60000, 64000, 33000, 15000, 6000)
SRGB_CODE_POINTS = chunk(b"cICP", bytes((1, 13, 0, 1)))
PQ_CODE_POINTS = chunk(b"cICP", bytes((9, 16, 0, 1)))


@pytest.mark.parametrize(
    ("chunks", "exponent", "swapped"),
    [
        (gamma(100000), 1.0, False),
        (gamma(55556), 1.8, False),
        (gamma(100000) + primaries(*SRGB_PLACES), 1.0, False),
        (gamma(55556) + primaries(*SWAPPED_PLACES), 1.8, True),
    ],
    ids=["gAMA of 1", "gAMA of 1 / 1.8", "gAMA and sRGB's primaries", "gAMA and other primaries"],
)
def test_gamma_and_primaries_of_a_png_are_followed(chunks: bytes, exponent: float, swapped: bool) -> None:
    image, rendering = shown(png(RGB, bits=8, colour=COLOUR, before=chunks))
    assert np.abs(image - srgb_of(RGB[..., (1, 0, 2)] if swapped else RGB, exponent)).max() <= 3
    assert rendering.steps == ("icc_profile",)


def test_gamma_of_a_grey_png_is_followed() -> None:
    image, rendering = shown(png(RAMP, bits=8, colour=GREY, before=gamma(100000)))
    assert np.abs(image - srgb_of(grey(RAMP), 1.0)).max() <= 3
    assert rendering.steps == ("icc_profile",)


@pytest.mark.parametrize(
    ("chunks", "steps"),
    [
        (gamma(45455), ()),
        (gamma(45455) + primaries(*SRGB_PLACES), ()),
        (gamma(47000), ()),
        (gamma(0), ()),
        (primaries(*SRGB_PLACES), ()),
        (chunk(b"sRGB", b"\0") + gamma(100000) + primaries(*SWAPPED_PLACES), ()),
        (SRGB_CODE_POINTS + gamma(100000), ()),
        (primaries(*SWAPPED_PLACES), ("icc_profile_ignored",)),
        (gamma(45455) + primaries(*[0] * 8), ("icc_profile_ignored",)),
        (gamma(45455) + primaries(*[30000] * 8), ("icc_profile_ignored",)),
        (gamma(1), ("icc_profile_ignored",)),
        (PQ_CODE_POINTS + gamma(100000), ("icc_profile_ignored",)),
        (gamma(100000)[:-1] + b"x", ("metadata_dropped",)),
    ],
    ids=[
        "sRGB's gamma", "sRGB's gamma and primaries", "nearly sRGB's gamma", "no gamma", "sRGB's primaries alone",
        "sRGB goes before", "code points go before", "primaries alone", "primaries of nothing",
        "primaries in one place", "an absurd gamma", "other code points", "a damaged gamma",
    ],
)  # fmt: skip
def test_what_a_png_says_of_srgb_changes_nothing_and_what_cannot_be_followed_is_named(
    chunks: bytes, steps: tuple[str, ...]
) -> None:
    image, rendering = shown(png(RGB, bits=8, colour=COLOUR, before=chunks))
    assert np.array_equal(image, RGB)
    assert rendering.steps == steps


def test_a_profile_goes_before_gamma() -> None:
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(matrix_profile(gamma=1.8)))
    image, rendering = shown(png(RGB, bits=8, colour=COLOUR, before=gamma(100000) + profile))
    assert np.abs(image - srgb_of(RGB, 1.8)).max() <= 3
    assert rendering.steps == ("icc_profile",)


def test_a_profile_that_unpacks_without_bounds_is_dropped() -> None:
    bomb = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**21)))
    image, _ = shown(png(RGB, bits=8, colour=COLOUR, before=bomb))
    assert np.array_equal(image, RGB)


def test_dicom_colours_are_brought_to_srgb(read: Read) -> None:
    data = dicom(RGB, colours=3, Modality="XC", ICCProfile=matrix_profile(gamma=1.0))
    assert read(data).rendering.steps == ("icc_profile",)
