"""TIFF files of every sample format, byte order and layout."""

import io
import itertools
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmoe.server.errors import UnreadableImage, UnsupportedImage
from tests.support.images.hostile_images import encoded
from tests.support.images.tiff_files import tiff
from tests.unit.server.conftest import Read

SIDE = 64
RAMP = np.tile(np.arange(SIDE) * 4, (SIDE, 1))
RAMP[SIDE // 2 :, 0] = 3
STRETCHED = np.rint(RAMP * 255 / 252)
RGB = np.stack([RAMP, 255 - RAMP, RAMP // 2 + 40], axis=-1)
GREY: dict[str, np.ndarray] = {
    "u1": RAMP, "u2": RAMP * 16, "u4": RAMP * 2**24, "u8": RAMP * 2**20, "i1": RAMP - 128, "i2": RAMP * 16 - 2000,
    "i4": (RAMP - 100) * 2**20, "f2": RAMP / 255, "f4": RAMP / 255 - 3, "f8": RAMP * 1e-6 + 1000,
}  # fmt: skip
LAYOUTS: dict[str, dict[str, Any]] = {
    "strip": {}, "deflated": {"deflate": True}, "tiles": {"tile": 48}, "BigTIFF": {"big": True},
    "predictor": {"deflate": True, "predictor": 2}, "predictor, tiles": {"deflate": True, "predictor": 2, "tile": 48},
}  # fmt: skip


def shows(read: Read, data: bytes, expected: np.ndarray, *, within: int = 2) -> tuple[str, ...]:
    decoded = read(data, config={"size": SIDE})
    expected = expected if expected.ndim == 3 else expected[..., None]
    assert np.abs(np.asarray(decoded.image).astype(int) - expected).max() <= within
    return decoded.rendering.steps


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("kind", list(GREY))
def test_grey_in_every_type_order_and_layout(read: Read, kind: str, layout: str) -> None:
    options = dict(LAYOUTS[layout])
    if kind[0] == "f" and "predictor" in options:
        options["predictor"] = 3
    expected = RAMP if kind == "u1" else STRETCHED
    for order, white in itertools.product("<>", (False, True)):
        data = tiff(GREY[kind].astype(kind), order=order, photometric=int(not white), **options)
        steps = shows(read, data, 255 - expected if white else expected)
        assert ("stretch" in steps) == (kind != "u1")


@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_packed_bits(read: Read, bits: int, white: bool, order: str) -> None:
    values = (RAMP * (2**bits - 1) // 252).astype(np.uint16)
    expected = np.rint(values * (255 / (2**bits - 1)))
    data = tiff(values, bits=bits, order=order, photometric=int(not white))
    shows(read, data, 255 - expected if white else expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("planes", [False, True], ids=["interleaved", "planes"])
@pytest.mark.parametrize(
    ("kind", "factor", "step"),
    [("u1", 1, None), ("u2", 257, "high_byte"), ("u2", 16, "low_bits"), ("u2", 1, "low_bits"),
     ("u4", 2**24, "high_byte"), ("f4", 1 / 255, None), ("f8", 1.0, None), ("f4", 100.0, "stretch")],
    ids=str,
)  # fmt: skip
def test_colours_in_every_depth(
    read: Read, kind: str, factor: float, step: str | None, planes: bool, layout: str, order: str
) -> None:
    options = dict(LAYOUTS[layout])
    if kind[0] == "f" and "predictor" in options:
        options["predictor"] = 3
    steps = shows(read, tiff((RGB * factor).astype(kind), order=order, planes=planes, **options), RGB, within=3)
    assert step is None or step in steps


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_at_every_depth(read: Read, kind: str, orientation: int) -> None:
    expected = RAMP if kind == "u1" else STRETCHED
    upright = {
        1: expected, 2: expected[:, ::-1], 3: expected[::-1, ::-1], 4: expected[::-1], 5: expected.T,
        6: np.rot90(expected, -1), 7: expected[::-1, ::-1].T, 8: np.rot90(expected),
    }  # fmt: skip
    data = tiff(GREY[kind].astype(kind), tags={274: [orientation]})
    assert ("orientation" in shows(read, data, upright[orientation])) == (orientation > 1)


@pytest.mark.parametrize("absent", [np.nan, -3.4e38, 3.4e38])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_floats_that_stand_for_no_data_are_background(read: Read, kind: str, absent: float) -> None:
    values = (RAMP / 255).astype(kind)
    values[:8] = absent
    expected = STRETCHED.copy()
    expected[:8] = 0
    assert "not_a_number" in shows(read, tiff(values, order=">"), expected)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_alpha_and_samples_without_meaning(read: Read, kind: str) -> None:
    factor = 1 if kind == "u1" else 257
    extra = np.full((SIDE, SIDE, 1), 255)
    extra[:8] = 0
    samples = (np.concatenate([RGB, extra], axis=-1) * factor).astype(kind)
    expected = RGB.copy()
    expected[:8] = 0
    shows(read, tiff(samples, tags={338: [2]}), expected)
    assert "samples_ignored" not in shows(read, tiff(samples, tags={338: [2]}), expected)
    assert "samples_ignored" in shows(read, tiff(samples, tags={338: [0]}), RGB)
    channels = np.stack([RGB[..., 0], extra[..., 0]], axis=-1).astype(kind)
    assert "samples_ignored" in shows(
        read, tiff(channels, tags={338: [0]}), np.repeat(RGB[..., :1], 3, axis=-1), within=4
    )


def test_complex_numbers_are_named(read: Read) -> None:
    with pytest.raises(UnsupportedImage, match="complex"):
        read(tiff(RGB[..., 0].astype(np.float64), tags={339: [6]}))


@pytest.mark.parametrize("compression", [33003, 34712, 50001, 50002])
def test_a_compression_that_is_not_read_is_named(read: Read, compression: int) -> None:
    with pytest.raises(UnsupportedImage, match="compression is not read"):
        read(tiff(RAMP.astype(np.uint8), tags={259: [compression]}))


@pytest.mark.parametrize("factor", [1, 257])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_palette_of_8_bits_is_read_as_one_of_16(read: Read, bits: int, factor: int) -> None:
    entries = np.arange(2**bits) * 255 // (2**bits - 1)
    palette = [int(entry) * factor for entry in (*entries, *entries[::-1], *(0 * entries))]
    values = (RAMP >> (8 - bits)).astype(np.uint8)
    data = tiff(values, bits=bits if bits < 8 else 0, photometric=3, tags={320: palette})
    steps = shows(read, data, np.stack([entries[values], entries[::-1][values], 0 * RAMP], axis=-1))
    assert ("lut_descriptor_corrected" in steps) == (factor == 1)


def test_samples_without_a_reader_are_no_damage(read: Read) -> None:
    data = tiff((RAMP * 16).astype(np.uint16), photometric=3, tags={320: list(range(2**16)) * 3})
    with pytest.raises(UnsupportedImage, match="are not read"):
        read(data)


@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_deep_drawing_on_transparency_is_seen(read: Read, colours: int, dark: bool, white: bool) -> None:
    if colours == 3 and white:
        return
    drawn = np.zeros((SIDE, SIDE), bool)
    drawn[20:40, 10:50] = True
    samples = np.full((SIDE, SIDE, colours + 1), 0 if dark != white else 65535, np.uint16)
    samples[..., -1] = 65535 * drawn
    data = tiff(samples, photometric=2 if colours == 3 else int(not white), tags={338: [2]})
    steps = shows(read, data, np.where(drawn == dark, 0, 255))
    assert ("over_white" if dark else "over_black") in steps


@pytest.mark.parametrize("cut", [2, 40])
@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize(
    "layout", [{}, {"deflate": True}, {"tile": 16}, {"big": True}], ids=["plain", "deflated", "tiles", "BigTIFF"]
)
def test_a_file_that_lacks_its_last_samples_is_refused(
    read: Read, layout: dict[str, Any], kind: str, samples: int, cut: int
) -> None:
    values = np.random.default_rng(0).integers(0, 128, (32, 32, samples)).astype(kind)
    data = tiff(values, directory_first=True, tags={338: [2]} if samples == 2 else {}, **layout)
    read(data, allow_uniform=True)
    with pytest.raises(UnreadableImage, match="damaged"):
        read(data[:-cut], allow_uniform=True)


@pytest.mark.parametrize("strip", [0, 1, 3])
@pytest.mark.parametrize("kind", ["colours", "grey"])
def test_a_jpeg_strip_that_lacks_blocks_is_refused(read: Read, kind: str, strip: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = Image.fromarray(noise if kind == "colours" else noise[..., 0])
    data = encoded(image, "TIFF", compression="jpeg", strip_size=16 * 64 * (3 if kind == "colours" else 1))
    read(data)
    with Image.open(io.BytesIO(data)) as opened:
        offsets, counts = opened.tag_v2[273], opened.tag_v2[279]  # type: ignore[attr-defined]
    assert len(offsets) == 4
    at = offsets[strip] + counts[strip] * 3 // 4
    with pytest.raises(UnreadableImage, match="scan data"):
        read(data[:at] + b"\xff\xd9" + data[at + 2 :])
