"""TIFF pages whose samples programs read differently: planes, alpha, subsampled chroma, inks, palettes, fax."""

import io
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmoe.model.image_formats.tiff import streams
from medmoe.model.image_formats.tiff.directory import read_directories
from medmoe.server.errors import UnreadableImage, UnsupportedImage
from tests.support.images.hostile_images import encoded
from tests.support.images.odd_files import matrix_profile
from tests.support.images.tiff_files import tiff
from tests.unit.server.conftest import Read

SIDE = 64
RAMP = np.tile(np.arange(SIDE) * 4, (SIDE, 1)).astype(np.uint8)
RAMP[-1, -1] = 255
RGB = np.stack([RAMP, 255 - RAMP, RAMP.T // 2 + 40], axis=-1)
ALPHA = np.full((SIDE, SIDE), 255, np.uint8)
ALPHA[:8], ALPHA[8:24] = 0, 128
INKS = np.dstack([RGB, RAMP // 4])
BLOCKS = np.kron(np.random.default_rng(2).integers(0, 2, (16, 8)), np.ones((8, 8), int)).astype(bool)


def shown(read: Read, data: bytes) -> np.ndarray:
    return np.asarray(read(data, config={"size": SIDE}).image, int)


def over_black(shades: np.ndarray) -> np.ndarray:
    shades = shades if shades.ndim == 3 else np.repeat(shades[..., None], 3, axis=-1)
    return np.asarray(shades * (ALPHA[..., None] / 255))


@pytest.mark.parametrize("white", [False, True], ids=["black is zero", "white is zero"])
@pytest.mark.parametrize("planes", [False, True], ids=["interleaved", "planes"])
@pytest.mark.parametrize("meaning", [1, 2], ids=["premultiplied", "alpha"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_grey_with_alpha_is_laid_over_black(read: Read, kind: str, meaning: int, planes: bool, white: bool) -> None:
    factor = {"u1": 1.0, "u2": 257.0, "f4": 1 / 255}[kind]
    stored = RAMP * (ALPHA / 255.0) if meaning == 1 else RAMP
    samples = (np.rint(np.stack([stored, ALPHA], axis=-1).astype(float)) * factor).astype(kind)
    data = tiff(samples, photometric=int(not white), planes=planes, deflate=planes, tags={338: [meaning]})
    assert np.abs(shown(read, data) - over_black(255 - RAMP if white else RAMP)).max() <= 3


@pytest.mark.parametrize("bits", [1, 2, 4, 5])
@pytest.mark.parametrize("planes", [False, True], ids=["interleaved", "planes"])
def test_colours_of_few_bits(read: Read, bits: int, planes: bool) -> None:
    values = RGB >> (8 - bits)
    expected = values * (255 / (2**bits - 1))
    assert np.abs(shown(read, tiff(values, bits=bits, planes=planes)) - expected).max() <= 1


def test_signed_colours_of_8_bits_are_scaled_as_those_of_16_bits_are(read: Read) -> None:
    for data in (tiff((RGB // 2).astype(np.int8)), tiff(RGB.astype(np.int16) * 128)):
        assert np.abs(shown(read, data) - RGB).max() <= 2
    values = (RGB // 2).astype(np.int8)
    values[:9] = -1
    assert (shown(read, tiff(values))[:9] == 0).all()


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_planes_of_ink(read: Read, kind: str, deflate: bool) -> None:
    paper = 255.0 - INKS
    samples = INKS.astype(kind) * (1 if kind == "u1" else 257)
    data = tiff(samples.astype(kind), photometric=5, planes=True, deflate=deflate)
    assert np.abs(shown(read, data) - paper[..., :3] * paper[..., 3:] / 255).max() <= 2


def test_a_fourth_sample_that_is_not_said_to_be_alpha_is_none(read: Read) -> None:
    for factor, kind in ((1, np.uint8), (257, np.uint16)):
        samples = np.dstack([RGB, RAMP.T]).astype(kind) * factor
        found = read(tiff(samples.astype(kind)), config={"size": SIDE})
        assert np.abs(np.asarray(found.image, int) - RGB).max() <= 1
        assert "samples_ignored" in found.rendering.steps


def subsampled(across: int, down: int, *, video: bool, rows: int) -> bytes:
    """Return uncompressed YCbCr in strips of `rows`, with blacks at 16 and whites at 235 on demand."""
    values = np.asarray(Image.fromarray(RGB).convert("YCbCr"), float)
    if video:
        values = values * (np.array([219, 224, 224]) / 255) + np.array([16, 15.56, 15.56])
    shape = (SIDE // down, down, SIDE // across, across)
    luma = values[..., 0].reshape(shape).transpose(0, 2, 1, 3).reshape(SIDE // down, SIDE // across, -1)
    chroma = values[..., 1:].reshape(*shape, 2).mean(axis=(1, 3))
    units = np.rint(np.concatenate([luma, chroma], axis=-1)).astype(np.uint8)
    strips = [units[at : at + rows // down].tobytes() for at in range(0, len(units), rows // down)]
    data = tiff(RGB, photometric=6, strips=strips, tags={278: [rows], 530: [across, down], 532: [0]})
    black, white, colour = (16, 235, 240) if video else (0, 255, 255)
    levels = (black, 1, white, 1, 128, 1, colour, 1, 128, 1, colour, 1)
    at = data.index(struct.pack("<HHI", 532, 4, 1))
    stated = struct.pack("<HHII", 532, 5, 6, len(data))
    return data[:at] + stated + data[at + 12 :] + struct.pack("<12I", *levels)


@pytest.mark.parametrize("rows", [SIDE, 16])
@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize("factors", [(1, 1), (2, 1), (2, 2), (1, 2)], ids=str)
def test_uncompressed_chroma(read: Read, factors: tuple[int, int], video: bool, rows: int) -> None:
    found = shown(read, subsampled(*factors, video=video, rows=rows))
    inner = np.abs(found - RGB)[:-8, :-8]
    assert inner.max() <= 12
    assert inner.mean() <= 4


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_signed_samples_of_any_number_of_bits(read: Read, bits: int) -> None:
    values = (RAMP.astype(int) - 128) * 2 ** (bits - 8)
    data = tiff((values & (2**bits - 1)).astype(np.uint16), bits=bits, tags={339: [2]})
    assert np.abs(shown(read, data) - RAMP[..., None]).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_samples_of_24_bits_are_in_the_order_of_the_file(read: Read, order: str) -> None:
    values = RAMP.astype(np.uint32) * 60000 + 1234
    stored = values.astype(f"{order}u4")[..., None].view(np.uint8)
    strip = np.ascontiguousarray(stored[..., :3] if order == "<" else stored[..., 1:]).tobytes()
    data = tiff(values, order=order, strips=[strip], tags={258: [24]})
    assert np.abs(shown(read, data) - RAMP[..., None]).max() <= 1


@pytest.mark.parametrize("absent", [np.nan, np.inf, -3.4e38, 3.4e38])
def test_colours_that_are_no_numbers_are_black(read: Read, absent: float) -> None:
    values = (RGB / 255).astype(np.float32)
    values[:8] = absent
    found = read(tiff(values), config={"size": SIDE})
    assert np.abs(np.asarray(found.image, int)[8:] - RGB[8:]).max() <= 1
    assert (np.asarray(found.image)[:8] == 0).all()
    assert found.rendering.steps == ("not_a_number",)


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("size", [(48, 64), (64, 48)], ids=str)
def test_a_tile_of_more_rows_or_columns_is_refused(read: Read, size: tuple[int, int], deflate: bool) -> None:
    small = RGB[:40, :40]
    tile = np.pad(small, ((0, 24), (0, 24), (0, 0)), constant_values=9)
    strips = [zlib.compress(tile.tobytes()) if deflate else tile.tobytes()]
    read(tiff(small, tile=64, deflate=deflate, strips=strips))
    with pytest.raises(UnreadableImage, match="more rows or columns"):
        read(tiff(small, tile=64, deflate=deflate, strips=strips, tags={322: [size[0]], 323: [size[1]]}))


def test_a_palette_in_the_other_order_of_bits(read: Read) -> None:
    values = np.packbits(RAMP > 100, axis=1, bitorder="little")
    table = [65535, 0, 0, 30000, 0, 65535]
    data = tiff(values, tags={256: [SIDE], 258: [1], 262: [3], 266: [2], 320: table})
    expected = np.where((RAMP > 100)[..., None], (0, 117, 255), (255, 0, 0))
    assert np.abs(shown(read, data) - expected).max() <= 1


@pytest.mark.parametrize(
    ("samples", "options", "named"),
    [
        (RAMP, {"tags": {262: []}}, "photometric interpretation"),
        (RAMP, {"photometric": 3, "tags": {320: list(range(0, 65536, 512)) * 3}}, "palettes"),
        (RAMP, {"photometric": 3}, "palettes"),
        (INKS, {"photometric": 5, "tags": {332: [2]}}, "inks"),
        (INKS, {"photometric": 5, "tags": {336: [255, 0]}}, "inks"),
        (RGB.astype(np.uint16), {"tags": {339: [1, 2, 1]}}, "different types"),
        (RGB, {"photometric": 8, "planes": True}, "planes"),
        (RAMP[:, :-1].astype(np.uint16), {"bits": 12, "tags": {259: [7]}}, "odd number"),
        (RAMP.astype(np.uint16), {"bits": 12, "deflate": True, "tags": {317: [2]}}, "differences"),
        (RGB >> 4, {"bits": 4, "deflate": True, "tags": {317: [2]}}, "differences"),
        (RAMP.astype(np.uint16), {"deflate": True, "tags": {317: [3]}}, "differences"),
        (RAMP, {"deflate": True, "tags": {317: [34892]}}, "differences"),
        (RAMP.astype(np.uint32), {"bits": 24, "tags": {339: [3]}}, "floating-point"),
        (RAMP.astype(np.uint16), {"bits": 12, "tags": {339: [3]}}, "floating-point"),
    ],
    ids=[
        "no interpretation", "half a palette", "no palette", "other inks", "inverted inks", "types", "Lab", "odd JPEG",
        "predictor of 12 bits", "predictor of 4 bits", "predictor of floats", "no predictor", "24 bits", "12 bits",
    ],
)  # fmt: skip
def test_what_programs_read_differently_is_refused_by_name(
    read: Read, samples: np.ndarray, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(UnsupportedImage, match=named):
        read(tiff(samples, **options))


def fax(compression: str, options: int, width: int = SIDE, height: int = 2 * SIDE) -> bytes:
    """Return a fax page of SIDE columns, twice as high, whose directory announces another size."""
    tags = {"tiffinfo": {292: options}} if compression == "group3" else {}
    data = bytearray(encoded(Image.fromarray(BLOCKS), "TIFF", compression=compression, strip_size=2**20, **tags))
    for tag, value in ((256, width), (257, height), (278, height)):
        at = next(at for at in (data.find(struct.pack("<HHI", tag, kind, 1)) for kind in (3, 4)) if at >= 0)
        data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, value)
    return bytes(data)


FAXES = [("group4", 0), ("group3", 0), ("group3", 1), ("group3", 4), ("group3", 5), ("tiff_ccitt", 0)]


@pytest.mark.parametrize(
    "size", [(SIDE, SIDE), (SIDE, 3 * SIDE), (SIDE, 2 * SIDE - 8), (SIDE - 8, 2 * SIDE), (SIDE // 2, 4 * SIDE)], ids=str
)
@pytest.mark.parametrize(("compression", "options"), FAXES, ids=str)
def test_a_fax_of_fewer_or_more_rows_than_its_directory_announces_is_refused(
    read: Read, compression: str, options: int, size: tuple[int, int]
) -> None:
    read(fax(compression, options))
    with pytest.raises(UnreadableImage, match="damaged"):
        read(fax(compression, options, *size))


@pytest.mark.parametrize("last_row", ["black", "white", "as the others"])
@pytest.mark.parametrize(("compression", "options"), FAXES, ids=str)
def test_a_fax_of_any_width_is_read(read: Read, compression: str, options: int, last_row: str) -> None:
    for width in (1, 2, 3, 4, 5, 6, 22, 23, 30, 31):
        pixels = np.random.default_rng(width).random((20, width)) > 0.5
        pixels[-4:] = pixels[-4:] if last_row == "as the others" else last_row == "white"
        if compression == "tiff_ccitt":
            # libtiff takes some rows of few codes for marks.
            pixels[:-1] = last_row == "black"
        tags = {"tiffinfo": {292: options}} if compression == "group3" else {}
        data = encoded(Image.fromarray(pixels), "TIFF", compression=compression, **tags)
        assert read(data, allow_uniform=True).width == width


@pytest.mark.parametrize(("compression", "options"), FAXES, ids=str)
def test_a_fax_that_ends_early_is_refused(read: Read, compression: str, options: int) -> None:
    data = bytearray(fax(compression, options))
    at = data.index(struct.pack("<HHI", 279, 4, 1)) + 8
    (count,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<I", data, at, count // 2)
    with pytest.raises(UnreadableImage, match="damaged"):
        read(bytes(data))


@pytest.mark.parametrize("lost", ["cut", "filled with zeros"])
@pytest.mark.parametrize("strip", ["first", "middle", "last"])
@pytest.mark.parametrize(("compression", "options"), FAXES, ids=str)
def test_a_fax_of_which_any_strip_lacks_rows_is_refused(
    read: Read, compression: str, options: int, strip: str, lost: str
) -> None:
    tags = {"tiffinfo": {278: 32, 292: options} if options else {278: 32}}
    data = encoded(Image.fromarray(BLOCKS), "TIFF", compression=compression, strip_size=32 * SIDE // 8, **tags)
    page = read_directories(data, most=1)[0]
    parts = [data[at : at + count] for at, count in zip(*page.parts, strict=True)]
    assert len(parts) == 4

    def written(strips: list[bytes]) -> bytes:
        described = {278: [32], 259: [page.compression], 292: [options]}
        return tiff(BLOCKS.astype(np.uint8), bits=1, photometric=page.photometric, strips=strips, tags=described)

    assert read(written([*parts[:3], parts[3] + bytes(40)])).sha256
    index = {"first": 0, "middle": 2, "last": 3}[strip]
    for share in (0, 0.3, 0.6, 0.9):
        kept = parts[index][: max(int(len(parts[index]) * share), 1)]
        damaged = kept if lost == "cut" else kept.ljust(len(parts[index]), b"\0")
        with pytest.raises(UnreadableImage, match="damaged"):
            read(written([*parts[:index], damaged, *parts[index + 1 :]]))


STRIPS = [RGB[at : at + 16].tobytes() for at in range(0, SIDE, 16)]


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("width", [SIDE - 1, SIDE - 4])
def test_strips_of_wider_rows_are_refused(read: Read, width: int, deflate: bool) -> None:
    strips = [zlib.compress(strip) for strip in STRIPS] if deflate else STRIPS
    tags = {259: [8 if deflate else 1], 278: [16]}
    assert (shown(read, tiff(RGB, strips=strips, tags=tags)) == RGB).all()
    with pytest.raises(UnreadableImage, match="more rows or columns"):
        read(tiff(RGB, strips=strips, tags=tags | {256: [width]}))


def test_a_strip_that_lacks_rows_is_not_filled_from_the_next(read: Read) -> None:
    strips = [STRIPS[0], STRIPS[1][: 10 * SIDE * 3], *STRIPS[2:]]
    with pytest.raises(UnreadableImage, match="lacks rows"):
        read(tiff(RGB, strips=strips, tags={278: [16]}))


@pytest.mark.parametrize("height", [SIDE, SIDE // 2])
def test_packed_bits_from_the_lowest_on_are_counted_as_they_are_read(read: Read, height: int) -> None:
    rows = b"".join(bytes([2]) + bytes(pixel) for row in RGB.astype(np.uint8) for pixel in row)
    flipped = bytes(int(f"{byte:08b}"[::-1], 2) for byte in rows)
    data = tiff(RGB[:height], strips=[flipped], tags={259: [32773], 266: [2]})
    if height == SIDE:
        assert (shown(read, data) == RGB).all()
    else:
        with pytest.raises(UnreadableImage, match="more rows"):
            read(data)


def old_jpeg(stream: bytes, *, rows: int = SIDE) -> bytes:
    """Return a page of compression 6 whose strip is a whole JPEG file."""
    tags = {257: [rows], 259: [6], 278: [rows], 512: [1], 513: [8], 514: [len(stream)], 530: [1, 1]}
    return tiff(RGB, photometric=6, strips=[stream], tags=tags)


@pytest.mark.parametrize("lost", ["zeros", "cut"])
def test_a_jpeg_of_old_style_that_lacks_blocks_is_refused(read: Read, lost: str) -> None:
    """libtiff shows the blocks grey."""
    stream = encoded(Image.fromarray(RGB.astype(np.uint8)), "JPEG", quality=90, subsampling=0)
    assert np.abs(shown(read, old_jpeg(stream)) - RGB).mean() < 4
    for share in (0.7, 0.8, 0.9):
        kept = stream[: int(len(stream) * share)]
        with pytest.raises(UnreadableImage, match="damaged"):
            read(old_jpeg(kept if lost == "cut" else kept.ljust(len(stream), b"\0")))


def test_a_jpeg_of_old_style_that_holds_more_rows_than_its_page_is_refused(read: Read) -> None:
    stream = encoded(Image.fromarray(RGB.astype(np.uint8)), "JPEG", subsampling=0)
    with pytest.raises(UnreadableImage, match="more rows"):
        read(old_jpeg(stream, rows=SIDE // 2))


DEEP = RGB[..., 0].astype(np.uint16) * 100 + np.random.default_rng(4).integers(0, 8, (SIDE, SIDE), dtype=np.uint16)


@pytest.mark.parametrize("lost", ["zeros", "cut"])
@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize(
    ("compression", "compress"), [(8, zlib.compress), (34925, lzma.compress)], ids=["Deflate", "LZMA"]
)
def test_a_strip_whose_stream_is_not_whole_is_refused(
    read: Read, compression: int, compress: Callable[[bytes], bytes], index: int, lost: str
) -> None:
    """Zeros in place of a stream are often codes, of which libtiff makes rows."""
    strips = [compress(DEEP[at : at + 16].tobytes()) for at in range(0, SIDE, 16)]
    tags = {259: [compression], 278: [16]}
    assert read(tiff(DEEP, strips=strips, tags=tags)).width == SIDE
    whole = strips[index]
    # Some writers fill up a strip.
    assert read(tiff(DEEP, strips=[*strips[:index], whole + bytes(9), *strips[index + 1 :]], tags=tags)).width == SIDE
    for share in (0.1, 0.3, 0.6, 0.9, 0.97):
        kept = whole[: int(len(whole) * share)]
        damaged = kept if lost == "cut" else kept.ljust(len(whole), b"\0")
        with pytest.raises(UnreadableImage, match="damaged"):
            read(tiff(DEEP, strips=[*strips[:index], damaged, *strips[index + 1 :]], tags=tags))


def test_strips_or_tiles_that_are_not_there_are_no_pixels(read: Read) -> None:
    with pytest.raises(UnreadableImage, match="missing"):
        read(tiff(RGB, strips=STRIPS[:-1], tags={278: [16]}))
    with pytest.raises(UnreadableImage, match="missing"):
        read(tiff(RGB, planes=True, tags={278: [16]}))
    data = tiff(RGB, strips=STRIPS, tags={278: [16]})
    (directory,) = struct.unpack_from("<I", data, 4)
    (places,) = struct.unpack_from("<I", data, data.index(struct.pack("<HHI", 273, 4, 4), directory) + 8)
    with pytest.raises(UnreadableImage, match="missing"):
        read(data[: places + 8] + bytes(4) + data[places + 12 :])


def test_a_tile_that_begins_within_another_is_damage(read: Read) -> None:
    with pytest.raises(UnreadableImage, match="lacks rows"):
        read(tiff(RGB, tile=32, tags={323: [33]}))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    ("samples", "tags", "step"),
    [
        (np.dstack([RGB, RAMP.T]), {338: [0]}, "samples_ignored"),
        (RGB, {34675: list(matrix_profile(gamma=1.8))}, "icc_profile"),
        (RAMP, {274: [6]}, "orientation"),
    ],
    ids=["meaning of a sample", "profile", "orientation"],
)
def test_a_damaged_text_hides_no_tag_behind_it(
    read: Read, samples: np.ndarray, tags: dict[int, list[int]], step: str
) -> None:
    text = 271 if 274 in tags else 305
    data = tiff(samples, deflate=True, tags=tags | {text: [1, 1]})
    at = data.index(struct.pack("<HH", text, 4))
    damaged = data[: at + 2] + struct.pack("<HII", 2, 64, 2**31) + data[at + 12 :]
    found = read(damaged, config={"size": SIDE})
    assert step in found.rendering.steps
    assert found.pixels == read(data, config={"size": SIDE}).pixels


def test_a_jpeg_that_is_smaller_than_its_strip_is_refused(read: Read) -> None:
    data = encoded(Image.fromarray(RGB), "TIFF", compression="jpeg", strip_size=2**20)
    read(data)
    for tag in (256, 257):
        changed = bytearray(data)
        at = next(at for at in (data.find(struct.pack("<HHI", tag, kind, 1)) for kind in (3, 4)) if at >= 0)
        changed[at : at + 12] = struct.pack("<HHII", tag, 4, 1, SIDE + 16)
        with pytest.raises(UnreadableImage, match="damaged"):
            read(bytes(changed))


def test_the_only_strip_of_a_page_is_inflated_once_to_be_measured(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    measure = streams.measure

    def counted(coded: bytes, compression: int, *, most: int) -> tuple[int, bool]:
        measured.append(len(coded))
        return measure(coded, compression, most=most)

    monkeypatch.setattr(streams, "measure", counted)
    file = io.BytesIO()
    image = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(64, 48))
    image.save(file, "TIFF", compression="tiff_adobe_deflate", tiffinfo={278: 64})
    read(file.getvalue())
    assert len(measured) == 1
