"""Signs, bits and colours of stored samples: the header, the samples and the code stream may contradict each other."""

import struct
import zlib
from typing import Any

import jpeg_ls
import numpy as np
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medmoe.server.errors import UnsupportedImage
from tests.support.images.dicom_elements import BIG_ENDIAN, EXPLICIT, SYNTAXES, file, fragments, meta_header, run_length
from tests.support.images.hostile_images import encoded
from tests.support.images.lossless_jpeg import lossless_jpeg
from tests.unit.server.conftest import Read

SIDE = 64
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
RAMP = np.tile(np.arange(SIDE) * 4, (SIDE, 1))
STRETCHED = np.rint(RAMP * 255 / 252)
RGB = np.stack([RAMP, 255 - RAMP, RAMP // 2 + 40], axis=-1).astype(np.uint8)
YBR = np.asarray(Image.fromarray(RGB).convert("YCbCr"))
BOARD = ((np.arange(SIDE)[:, None] // 8 + np.arange(SIDE) // 8) % 2).astype(np.uint8)


def shown(read: Read, data: bytes, **fields: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    decoded = read(data, config={"size": SIDE}, **fields)
    return np.asarray(decoded.image).astype(int), decoded.rendering.steps


def shows(read: Read, data: bytes, expected: np.ndarray, *, within: int = 1) -> tuple[str, ...]:
    found, steps = shown(read, data)
    expected = expected if expected.ndim == 3 else expected[..., None]
    assert np.abs(found - expected).max() <= within
    return steps


def jpeg_2000(values: np.ndarray, *, signed: bool = False, precision: int = 16) -> bytes:
    """Return a lossless stream of 16-bit `values`, whose header says `precision` bits and a sign."""
    level = 2**15 - (0 if signed else 2 ** (precision - 1))
    stream = bytearray(encoded(Image.fromarray((values + level).astype(np.uint16)), "JPEG2000", no_jp2=True))
    # The encoder subtracts 2^15; a decoder adds half the range that the header says, and nothing with a sign.
    stream[42] = (precision - 1) | (0x80 if signed else 0)
    return bytes(stream)


def jpeg(*, keep: bool = False, marked: bool = True, subsampling: int = 0) -> bytes:
    options: dict[str, Any] = {"keep_rgb": True} if keep else {}
    data = encoded(Image.fromarray(RGB), "JPEG", quality=100, subsampling=subsampling, **options)
    if marked:
        return data
    kept, at = data[:2], 2
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        kept += b"" if data[at + 1] in (0xE0, 0xEE) else data[at : at + 2 + length]
        at += 2 + length
    return kept + data[at:]


@pytest.mark.parametrize(
    ("stream", "stored", "signed", "step"),
    [
        (jpeg_2000(RAMP * 16), 16, False, None),
        (jpeg_2000(RAMP * 16), 12, False, None),
        (jpeg_2000(RAMP * 16), 10, False, "unused_bits"),
        (jpeg_2000(RAMP * 16, precision=12), 16, True, None),
        (jpeg_2000(RAMP * 8 - 1000, signed=True), 16, True, None),
        (jpeg_2000(RAMP * 8 - 1000, signed=True), 12, True, None),
        (jpeg_2000(RAMP * 8 - 1000, signed=True), 16, False, "sign_inferred"),
        (jpeg_2000(RAMP * 257 - 2**15, signed=True), 16, False, None),
        (jpeg_2000((RAMP * 8 - 1000) & 0xFFFF), 16, True, None),
        (jpeg_2000((RAMP * 8 - 1000) & 0xFFF), 12, True, None),
        (jpeg_2000((RAMP * 8 - 1000) & 0xFFF, precision=12), 12, True, None),
        (jpeg_2000((RAMP * 8 - 1000) & 0xFFF, precision=12), 16, True, "unused_bits"),
        (jpeg_2000(RAMP * 16, precision=12), 12, True, "sign_inferred"),
    ],
    ids=[
        "16 as said", "12 of 16", "more bits than said", "12 bits positive, sign said", "signed", "signed, 12 said",
        "signed, no sign said", "two's complement of 16 bits read as signed", "complement in 16 unsigned",
        "complement of 12 in 16 unsigned", "complement in 12 unsigned", "complement of 12, 16 said",
        "12 bits positive, sign of 12 said",
    ],
)  # fmt: skip
def test_sign_and_precision_of_a_code_stream(
    read: Read, stream: bytes, stored: int, signed: bool, step: str | None
) -> None:
    steps = shows(read, file(fragments(stream), syntax=JPEG2000Lossless, stored=stored, signed=signed), STRETCHED)
    assert step is None or step in steps


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("values", "stored", "high", "signed", "step"),
    [
        (RAMP * 16, 12, 11, False, None),
        (RAMP * 16, 10, 9, False, "unused_bits"),
        (RAMP * 16 + 0x3000, 12, 11, False, "unused_bits"),
        ((RAMP * 8 - 1000) & 0xFFF, 12, 11, True, None),
        (RAMP * 8 - 1000, 12, 11, True, None),
        (RAMP * 256, 12, 15, False, "high_bit"),
        (RAMP * 16 + 3, 12, 15, False, "high_bit"),
        (RAMP * 16, 12, 40, False, "high_bit"),
    ],
    ids=["plain", "more bits", "constant high bits", "signed", "extended", "high bit 15", "high bit untrue", "absurd"],
)
def test_stored_bits_of_uncompressed_samples(
    read: Read, syntax: str, values: np.ndarray, stored: int, high: int, signed: bool, step: str | None
) -> None:
    cells = (values & 0xFFFF).astype(np.uint16)
    data = file(cells, {0x00280102: ("US", [high])}, syntax=syntax, stored=stored, signed=signed)
    assert step is None or step in shows(read, data, STRETCHED)


@pytest.mark.parametrize(("stored", "shift"), [(8, 8), (12, 4), (8, 4)])
def test_stored_bits_of_uncompressed_colours(read: Read, stored: int, shift: int) -> None:
    values = (RGB.astype(np.uint16) << (stored - 8)) << shift
    described = {0x00280102: ("US", [stored - 1 + shift])}
    assert "high_bit" in shows(read, file(values, described, colour="RGB", stored=stored), RGB)


@pytest.mark.parametrize("kind", [np.uint32, np.int32])
@pytest.mark.parametrize("low_first", [False, True], ids=["high word first", "low word first"])
def test_big_endian_words_of_32_bits_in_either_order(read: Read, kind: type, low_first: bool) -> None:
    values = (RAMP * 1000 - (100_000 if kind == np.int32 else 0)).astype(kind)
    stored = values.view(np.uint32)
    stored = stored << 16 | stored >> 16 if low_first else stored
    shows(read, file(stored, syntax=BIG_ENDIAN, bits=32, signed=kind == np.int32), STRETCHED)


def test_signed_noise_in_big_endian_words_of_32_bits(read: Read) -> None:
    noise = np.random.default_rng(0).integers(-2048, 2048, (SIDE, SIDE)).astype(np.int32)
    little = read(file(noise, bits=32, stored=12, signed=True))
    big = read(file(noise.view(np.uint32), syntax=BIG_ENDIAN, bits=32, stored=12, signed=True))
    assert (big.pixels, big.rendering.steps) == (little.pixels, little.rendering.steps)


def test_overlay_bits_above_the_values_are_no_values(read: Read) -> None:
    overlaid = (RAMP * 16).astype(np.uint16) | (BOARD.astype(np.uint16) << 12)
    data = file(overlaid, {0x60000010: ("US", [SIDE]), 0x60000102: ("US", [12])}, stored=12)
    assert {"unused_bits", "overlay_ignored"} <= set(shows(read, data, STRETCHED))


@pytest.mark.parametrize("planes", [0, 1])
@pytest.mark.parametrize("colour", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize(
    "stream",
    [jpeg(), jpeg(subsampling=1), jpeg(subsampling=2), jpeg(marked=False, subsampling=1), jpeg(keep=True),
     jpeg(keep=True, marked=False)],
    ids=["JFIF", "4:2:2", "4:2:0", "unmarked 4:2:2", "Adobe RGB", "components R G B"],
)  # fmt: skip
def test_a_jpeg_that_tells_its_colours_is_believed(read: Read, stream: bytes, colour: str, planes: int) -> None:
    data = file(fragments(stream), {0x00280006: ("US", [planes])}, syntax=JPEGBaseline8Bit, colour=colour, bits=8)
    shows(read, data, RGB, within=12)


@pytest.mark.parametrize("marker", [b"", b"\xff\xee\0\x0cAdobe" + bytes(5)], ids=["none", "Adobe without transform"])
def test_the_header_decides_on_a_jpeg_that_does_not_tell_its_colours(read: Read, marker: bytes) -> None:
    stream = jpeg(keep=True, marked=False)
    for name, number in ((b"R", b"\1"), (b"G", b"\2"), (b"B", b"\3")):
        # In the frame's header, and in the scan's.
        stream = stream.replace(name + b"\x11", number + b"\x11", 1)
    scan = stream.index(b"\xff\xda")
    names = scan + 5
    stream = stream[:names] + bytes((1, stream[names + 1], 2, stream[names + 3], 3)) + stream[names + 5 :]
    data = file(fragments(stream[:2] + marker + stream[2:]), syntax=JPEGBaseline8Bit, colour="RGB", bits=8)
    shows(read, data, RGB, within=12)


@pytest.mark.parametrize("colour", ["RGB", "YBR_RCT", "YBR_FULL"])
@pytest.mark.parametrize("transform", [True, False])
def test_the_component_transform_of_jpeg_2000_tells_rgb(read: Read, colour: str, transform: bool) -> None:
    values = YBR if colour == "YBR_FULL" and not transform else RGB
    stream = encoded(Image.fromarray(values), "JPEG2000", no_jp2=True, mct=int(transform))
    for planes in (0, 1):
        data = file(fragments(stream), {0x00280006: ("US", [planes])}, syntax=JPEG2000Lossless, colour=colour, bits=8)
        shows(read, data, RGB, within=4)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("planes", [0, 1])
@pytest.mark.parametrize("colour", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("factor", [1, 16, 257])
def test_uncompressed_colours(read: Read, syntax: str, planes: int, colour: str, factor: int) -> None:
    values = (RGB if colour == "RGB" else YBR).astype(np.uint8 if factor == 1 else np.uint16) * factor
    if planes:
        values = np.ascontiguousarray(values.transpose(2, 0, 1))
    data = file(values, {0x00280006: ("US", [planes])}, syntax=syntax, colour=colour, bits=8 * values.itemsize)
    steps = shows(read, data, RGB, within=4)
    assert steps == {1: (), 16: ("low_bits",), 257: ("high_byte",)}[factor]


@pytest.mark.parametrize(("colour", "values"), [("RGB", RGB), ("YBR_FULL", YBR)])
def test_uncompressed_colours_of_few_bits_are_scaled(read: Read, colour: str, values: np.ndarray) -> None:
    assert shows(read, file(values >> 2, colour=colour, bits=8, stored=6), RGB, within=8) == ("low_bits",)


def compressed_colours(values: np.ndarray, syntax: str) -> bytes:
    """Return a frame of `values` [rows, columns, 3]."""
    size = values.itemsize
    if syntax == RLELossless:
        planes = values.transpose(2, 0, 1).astype(values.dtype.newbyteorder(">"))
        return run_length([plane.tobytes()[byte::size] for plane in planes for byte in range(size)])
    if syntax == JPEG2000Lossless:
        return bytes(encode_array(values, bits_stored=8 * size, use_mct=False))
    if syntax == JPEGLosslessSV1:
        return lossless_jpeg(values, bits=8 * size)
    if syntax == JPEGLSLossless:
        return bytes(jpeg_ls.encode_array(values, interleave_mode=2))
    return zlib.compress(values.tobytes(), wbits=-zlib.MAX_WBITS)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLosslessSV1])
def test_dark_colours_of_12_bits_stay_dark_in_a_stream_of_16(read: Read, syntax: str) -> None:
    dark = RGB.astype(np.uint16) * 4
    data = file(fragments(compressed_colours(dark, syntax)), syntax=syntax, colour="RGB", stored=12)
    assert shows(read, data, RGB // 4, within=2) == ("high_byte",)


@pytest.mark.parametrize("syntax", [RLELossless, DEFLATED_FRAMES, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
@pytest.mark.parametrize("colour", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("factor", [1, 16, 257])
def test_compressed_colours(read: Read, syntax: str, colour: str, factor: int) -> None:
    values = (RGB if colour == "RGB" else YBR).astype(np.uint8 if factor == 1 else np.uint16) * factor
    frame = fragments(compressed_colours(values, syntax))
    shows(read, file(frame, syntax=syntax, colour=colour, bits=8 * values.itemsize), RGB, within=4)


def test_chrominance_is_subsampled_or_not_as_the_length_says(read: Read) -> None:
    pairs = np.stack([YBR[:, ::2, 0], YBR[:, 1::2, 0], YBR[:, ::2, 1], YBR[:, ::2, 2]], axis=-1)
    for values, said in ((pairs, "YBR_FULL"), (YBR, "YBR_FULL_422")):
        assert shows(read, file(values, colour=said, bits=8), RGB, within=12) == ("attribute_inferred",)
    assert shows(read, file(pairs, colour="YBR_FULL_422", bits=8), RGB, within=12) == ()


def test_pairs_of_pixels_need_rows_of_an_even_number_and_no_planes(read: Read) -> None:
    pairs = np.stack([YBR[:, ::2, 0], YBR[:, 1::2, 0], YBR[:, ::2, 1], YBR[:, ::2, 2]], axis=-1)
    odd = (RGB.shape[0], RGB.shape[1] - 1)
    for described in ({"shape": odd}, {"elements": {0x00280006: ("US", [1])}}):
        with pytest.raises(UnsupportedImage, match="odd number of pixels, or its colours lie in planes"):
            read(file(pairs, colour="YBR_FULL_422", bits=8, **described))


def test_colours_have_no_sign(read: Read) -> None:
    assert shows(read, file(RGB, colour="RGB", bits=8, signed=True), RGB) == ("sign_inferred",)


@pytest.mark.parametrize(
    ("missing", "values", "expected"),
    [
        (0x00280002, RAMP.astype(np.uint16), STRETCHED),
        (0x00280100, RAMP.astype(np.uint8), RAMP),
        (0x00280100, RAMP.astype(np.uint16), STRETCHED),
        (0x00280101, RAMP.astype(np.uint16), STRETCHED),
        (0x00280102, RAMP.astype(np.uint16), STRETCHED),
        (0x00280103, RAMP.astype(np.uint16), STRETCHED),
    ],
    ids=["samples", "8 bits allocated", "16 bits allocated", "stored", "high bit", "sign"],
)
def test_a_missing_attribute_is_inferred(read: Read, missing: int, values: np.ndarray, expected: np.ndarray) -> None:
    stored = 8 if values.dtype == np.uint8 else 16
    steps = shows(read, file(values, {missing: None}, stored=stored, bits=stored), expected)
    assert ("attribute_inferred" in steps) == (missing != 0x00280102)


@pytest.mark.parametrize("name", ["monochrome2", "MONOCHROME2 ", " Monochrome2\0", "MONOCHROME2\\ORIGINAL"])
def test_code_strings_are_read_in_any_case_and_padding(read: Read, name: str) -> None:
    shows(read, file((RAMP * 16).astype(np.uint16), {0x00280004: ("CS", name)}), STRETCHED)


def test_a_missing_photometric_interpretation_is_named(read: Read) -> None:
    with pytest.raises(UnsupportedImage, match="lacks PhotometricInterpretation"):
        read(file(RAMP.astype(np.uint16), {0x00280004: None}))


@pytest.mark.parametrize("envelope", [-15, 15, 31], ids=["raw", "zlib", "gzip"])
def test_deflated_files_and_frames_in_any_envelope(read: Read, envelope: int) -> None:
    def deflated(data: bytes) -> bytes:
        return zlib.compress(data, wbits=envelope)

    values = (RAMP * 16).astype(np.uint16)
    shows(read, file(fragments(deflated(values.tobytes())), syntax=DEFLATED_FRAMES), STRETCHED)
    shows(read, meta_header(DeflatedExplicitVRLittleEndian) + deflated(file(values, head=b"")), STRETCHED)


@pytest.mark.parametrize("tag", [0x7FE00008, 0x7FE00009], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize("syntax", [EXPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("absent", [np.nan, -3.4e38, 3.4e38, "declared"], ids=str)
def test_floats_that_stand_for_no_data_are_background(read: Read, tag: int, syntax: str, absent: Any) -> None:
    values = RAMP / 255
    values[:8] = -9.0 if absent == "declared" else absent
    kind, vr, padding = ("f4", "OF", "FL") if tag == 0x7FE00008 else ("f8", "OD", "FD")
    stored = values.astype(f"{'>' if syntax == BIG_ENDIAN else '<'}{kind}").tobytes()
    declared = {0x00280122 + (tag & 1): (padding, [-9.0])} if absent == "declared" else {}
    data = file(None, {tag: (vr, stored), **declared}, syntax=syntax, bits=8 * int(kind[1]))
    expected = STRETCHED.copy()
    expected[:8] = 0
    assert ("not_a_number" in shows(read, data, expected)) == (absent != "declared")


@pytest.mark.parametrize(
    ("colour", "shape", "told"),
    [("MONOCHROME2", "IDENTITY", False), ("MONOCHROME1", "INVERSE", False), ("MONOCHROME2", "INVERSE", True),
     ("MONOCHROME1", "IDENTITY", True)],
)  # fmt: skip
def test_a_presentation_table_that_contradicts_is_told(read: Read, colour: str, shape: str, told: bool) -> None:
    data = file((RAMP * 16).astype(np.uint16), {0x20500020: ("CS", shape)}, colour=colour)
    steps = shows(read, data, 255 - STRETCHED if colour == "MONOCHROME1" else STRETCHED)
    assert ("presentation_lut_ignored" in steps) == told
