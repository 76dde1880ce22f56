"""PNG files whose palette, transparency, filters or animation decoders read differently."""

import itertools
import struct
import zlib

import numpy as np
import pytest

from medmoe.server.errors import UnreadableImage, UnsupportedImage
from tests.support.images.odd_files import COLOUR, COLOUR_ALPHA, GREY, PALETTE, chunk, png
from tests.unit.server.conftest import Read

SIDE = 32
RAMP = np.linspace(0, 255, SIDE * SIDE).round().astype(np.uint8).reshape(SIDE, SIDE)
COLOURS = np.stack([RAMP, 255 - RAMP, RAMP.T], axis=-1)
OPAQUE = np.full((SIDE, SIDE), 255, np.uint8)
TABLE = np.random.default_rng(3).integers(0, 256, (256, 3), dtype=np.uint8)
LINEAR = chunk(b"gAMA", struct.pack(">I", 100000))


def shown(read: Read, data: bytes, **fields: int) -> np.ndarray:
    return np.asarray(read(data, config={"size": SIDE}, **fields).image, int)


def indexed(colours: int, *, bits: int = 8, before: bytes = b"", after: bytes = b"") -> bytes:
    table = chunk(b"PLTE", TABLE[:colours].tobytes())
    return png(RAMP >> (8 - bits), bits=bits, colour=PALETTE, before=before + table + after)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_an_index_without_a_colour_is_damage(read: Read, bits: int) -> None:
    found = shown(read, indexed(2**bits, bits=bits))
    assert (found == TABLE[RAMP >> (8 - bits)]).all()
    with pytest.raises(UnreadableImage, match="palette lacks"):
        read(indexed(2**bits - 1, bits=bits))


def test_transparency_in_a_wrong_place_is_dropped(read: Read) -> None:
    hidden = chunk(b"tRNS", bytes(256))
    found = read(indexed(256, before=hidden), config={"size": SIDE})
    assert (np.asarray(found.image) == TABLE[RAMP]).all()
    assert found.rendering.steps == ("metadata_dropped",)
    whole = png(COLOURS, bits=8, colour=COLOUR)
    key = chunk(b"tRNS", struct.pack(">3H", *map(int, COLOURS[4, 4])))
    found = read(whole[:-12] + key + whole[-12:], config={"size": SIDE})
    assert (np.asarray(found.image) == COLOURS).all()


def test_a_critical_part_that_is_not_known_is_refused_by_name(read: Read) -> None:
    with pytest.raises(UnsupportedImage, match="not known"):
        read(png(COLOURS, bits=8, colour=COLOUR, before=chunk(b"CgBI", bytes(4))))


@pytest.mark.parametrize(("at", "value"), [(26, 1), (27, 64), (28, 2)], ids=["compression", "filter", "interlace"])
def test_a_method_that_is_not_known_is_refused_by_name(read: Read, at: int, value: int) -> None:
    data = bytearray(png(COLOURS, bits=8, colour=COLOUR))
    data[at] = value
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(UnsupportedImage, match="not known"):
        read(bytes(data))


@pytest.mark.parametrize("end", [8, 12, 20, 27, 28, 31])
def test_a_torn_header_is_damage(read: Read, end: int) -> None:
    whole = png(COLOURS, bits=8, colour=COLOUR)
    for data in (whole[:end], whole[:end] + b" torn", whole[:end] + b"\xff" + whole[end + 1 :]):
        with pytest.raises(UnreadableImage):
            read(data)


@pytest.mark.parametrize("row", [0, 17, SIDE - 1])
@pytest.mark.parametrize("interlaced", [False, True])
def test_rows_of_an_unknown_filter_are_damage(read: Read, interlaced: bool, row: int) -> None:
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    passes = [COLOURS[y::down, x::right] for x, y, right, down in steps] if interlaced else [COLOURS]
    rows = [each.tobytes() for taken in passes for each in taken]

    def written(filter_: int) -> bytes:
        pixels = b"".join(bytes([filter_ if at == row else 0]) + each for at, each in enumerate(rows))
        header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, COLOUR, 0, 0, interlaced)
        parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    assert (shown(read, written(0)) == COLOURS).all()
    read(written(4))
    with pytest.raises(UnreadableImage, match="unknown way"):
        read(written(5))


def test_a_transparent_colour_is_one_of_the_file_and_not_of_the_profile(read: Read) -> None:
    key = tuple(map(int, COLOURS[20, 5]))
    plain = shown(read, png(COLOURS, bits=8, colour=COLOUR, before=LINEAR))
    hidden = (key == COLOURS).all(axis=-1)
    expected = np.where(hidden[..., None], 0, plain)
    assert (shown(read, png(COLOURS, bits=8, colour=COLOUR, key=key, before=LINEAR)) == expected).all()
    plain = shown(read, png(RAMP, bits=8, colour=GREY, before=LINEAR))
    expected = np.where((RAMP == 60)[..., None], 0, plain)
    assert (shown(read, png(RAMP, bits=8, colour=GREY, key=(60,), before=LINEAR)) == expected).all()


BOX = (slice(5, 20), slice(3, 23))
REGION = np.dstack([COLOURS[BOX][::-1], np.repeat([[0], [128], [255]], [5, 5, 5], axis=0) * np.ones((1, 20))])
SMALL = np.dstack([COLOURS[:9, :9], OPAQUE[:9, :9]])


def control(number: int, shape: tuple[int, ...], top: int, left: int, disposal: int, blend: int) -> bytes:
    height, width = shape[:2]
    return chunk(b"fcTL", struct.pack(">5I2H2B", number, width, height, left, top, 1, 10, disposal, blend))


def packed(samples: np.ndarray) -> bytes:
    rows = samples.astype(">u2" if samples.max() > 255 else np.uint8)
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))


def animated(disposal: int, blend: int, *, region: bytes = b"", bits: int = 8) -> bytes:
    factor = 257 if bits == 16 else 1
    whole = np.dstack([COLOURS, OPAQUE]).astype(int) * factor
    parts = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, bits, COLOUR_ALPHA, 0, 0, 0)),
        chunk(b"acTL", struct.pack(">II", 3, 0)),
        control(0, whole.shape, 0, 0, 0, 0), chunk(b"IDAT", packed(whole)),
        control(1, REGION.shape, 5, 3, disposal, blend),
        chunk(b"fdAT", struct.pack(">I", 2) + (region or packed(REGION * factor))),
        control(3, SMALL.shape, 20, 20, 0, 0),
        chunk(b"fdAT", struct.pack(">I", 4) + packed(SMALL.astype(int) * factor)),
        chunk(b"IEND", b""),
    ]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("disposal", "blend"), list(itertools.product((0, 1, 2), (0, 1))))
def test_frames_of_an_animation_are_composed(read: Read, disposal: int, blend: int) -> None:
    share = REGION[..., 3:] / 255
    second = COLOURS.astype(float)
    second[BOX] = REGION[..., :3] * share + (second[BOX] * (1 - share) if blend else 0)
    third = COLOURS.astype(float) if disposal else second.copy()
    if disposal == 1:
        third[BOX] = 0
    third[20:29, 20:29] = SMALL[..., :3]
    for frame, expected in enumerate((COLOURS, second, third)):
        found = shown(read, animated(disposal, blend), frame=frame)
        assert np.abs(found - expected).max() <= 1


def test_a_frame_without_all_its_rows_is_damage(read: Read) -> None:
    for region in (packed(REGION[:-1]), packed(np.concatenate([REGION, REGION[:2]]))):
        assert read(animated(0, 0, region=region)).rendering.frames == 3
        with pytest.raises(UnreadableImage, match="damaged"):
            read(animated(0, 0, region=region), frame=2)


def test_a_frame_that_reaches_out_of_the_image_is_damage(read: Read) -> None:
    inside, outside = (control(1, REGION.shape, 5, left, 0, 0) for left in (3, SIDE - REGION.shape[1] + 1))
    with pytest.raises(UnreadableImage, match="outside"):
        read(animated(0, 0).replace(inside, outside), frame=1)


def test_deep_frames_that_are_laid_over_others_are_refused_by_name(read: Read) -> None:
    read(animated(0, 0, bits=16))
    with pytest.raises(UnsupportedImage, match="animated PNG"):
        read(animated(0, 0, bits=16), frame=1)


TURNED = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 274, 3, 1, 6, 0)


def raw_profile(kind: bytes, name: bytes, *, length: int | None = None) -> bytes:
    exif = b"Exif\0\0" + TURNED
    digits = exif.hex().encode()
    text = b"\nexif\n%8d\n%s\n%s\n" % (len(exif) if length is None else length, digits[:72], digits[72:])
    return chunk(kind, name + (b"\0\0" + zlib.compress(text) if kind == b"zTXt" else b"\0" + text))


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
@pytest.mark.parametrize("name", [b"Raw profile type exif", b"Raw profile type APP1"])
def test_an_orientation_in_a_raw_profile_is_followed(read: Read, kind: bytes, name: bytes) -> None:
    text = raw_profile(kind, name)
    whole = png(COLOURS, bits=8, colour=COLOUR)
    for data in (whole[:33] + text + whole[33:], whole[:-12] + text + whole[-12:]):
        assert (shown(read, data) == np.rot90(COLOURS, -1)).all()
    upright = chunk(b"eXIf", TURNED.replace(struct.pack("<I", 6), struct.pack("<I", 1)))
    assert (shown(read, whole[:33] + text + upright + whole[33:]) == COLOURS).all()


@pytest.mark.parametrize("text", [
    raw_profile(b"zTXt", b"Raw profile type exif", length=7),
    chunk(b"zTXt", b"Raw profile type exif\0\0damaged"),
    chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(2**22))),
    chunk(b"tEXt", b"Raw profile type exif\0\nexif\n8\nnot hexadecimal"),
], ids=["length", "deflate", "bomb", "digits"])  # fmt: skip
def test_a_raw_profile_that_is_damaged_turns_no_image(read: Read, text: bytes) -> None:
    assert (shown(read, png(COLOURS, bits=8, colour=COLOUR, before=text)) == COLOURS).all()


def test_a_second_header_or_palette_is_damage(read: Read) -> None:
    other = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE * 2, SIDE // 2, 8, COLOUR, 0, 0, 0))
    with pytest.raises(UnreadableImage, match="two headers"):
        read(png(COLOURS, bits=8, colour=COLOUR, before=other))
    with pytest.raises(UnreadableImage, match="two palettes"):
        read(indexed(256, after=chunk(b"PLTE", TABLE[::-1].tobytes())))


def test_the_first_of_several_chunks_of_a_kind_counts(read: Read) -> None:
    first, second = (chunk(b"tRNS", bytes([alpha]) * 256) for alpha in (255, 0))
    assert (shown(read, indexed(256, after=first + second)) == TABLE[RAMP]).all()
    first, second = (chunk(b"eXIf", TURNED.replace(struct.pack("<I", 6), struct.pack("<I", at))) for at in (1, 6))
    assert (shown(read, png(COLOURS, bits=8, colour=COLOUR, before=first + second)) == COLOURS).all()
    plain = chunk(b"gAMA", struct.pack(">I", 45455))
    assert (shown(read, png(COLOURS, bits=8, colour=COLOUR, before=plain + LINEAR)) == COLOURS).all()


def test_the_first_raw_profile_counts(read: Read) -> None:
    damaged = chunk(b"zTXt", b"Raw profile type exif\0\0damaged")
    text = raw_profile(b"zTXt", b"Raw profile type exif")
    assert (shown(read, png(COLOURS, bits=8, colour=COLOUR, before=damaged + text)) == COLOURS).all()
    assert (shown(read, png(COLOURS, bits=8, colour=COLOUR, before=text + damaged)) == np.rot90(COLOURS, -1)).all()


def test_a_chunk_that_is_damaged_or_in_a_wrong_place_does_not_count_as_the_first(read: Read) -> None:
    turned = chunk(b"eXIf", TURNED)
    damaged = turned[:-1] + bytes([turned[-1] ^ 1])
    assert (shown(read, png(COLOURS, bits=8, colour=COLOUR, before=damaged + turned)) == np.rot90(COLOURS, -1)).all()
    misplaced, right = chunk(b"tRNS", bytes([255]) * 256), chunk(b"tRNS", bytes([255, 0]) * 128)
    expected = shown(read, indexed(256, after=right))
    assert (expected != TABLE[RAMP]).any()
    assert (shown(read, indexed(256, before=misplaced, after=right)) == expected).all()
