"""Files that few programs write: rare layouts, depths and compressions show the colours that were stored."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from medmoe.model.image_formats.tiff.directory import read_directories
from medmoe.server.errors import UnreadableImage, UnsupportedImage
from tests.support.images.hostile_images import encoded
from tests.support.images.odd_files import chunk, png
from tests.support.images.tiff_files import tiff
from tests.unit.server.conftest import Read

SIDE = 32
PALETTE = ((220, 30, 40), (40, 200, 60), (30, 60, 210), (240, 240, 250))
INDICES = np.kron(np.arange(4).reshape(2, 2), np.ones((SIDE // 2, SIDE // 2), int)).astype(np.uint8)
COLOURS = np.array(PALETTE, np.uint8)[INDICES]
IMAGE = Image.fromarray(COLOURS)
BITS = INDICES > 1
WHITE_AND_BLACK = np.where(BITS, 255, 0)[..., None] * np.ones(3)
BLACK_FIRST = ((0, 0, 0), *PALETTE[1:])
EMPTY_ROW = np.array(BLACK_FIRST, np.uint8)[np.repeat(np.fmax(INDICES[:, :1], 1), SIDE, axis=1)]
EMPTY_ROW[SIDE // 2 - 1] = 0
BLUE_GREEN_RED = np.dstack([COLOURS[..., ::-1], np.zeros((SIDE, SIDE), np.uint8)])
LAB = ImageCms.applyTransform(
    IMAGE, ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
)


def bmp(
    bits: int, body: bytes, *, compression: int = 0, height: int = SIDE, table: bytes = b"", masks: bytes = b""
) -> bytes:
    start = 54 + len(masks) + len(table)
    head = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, height, 1, bits, compression, len(body), 0, 0, len(table) // 4, 0)
    return head + info + masks + table + body


def table(*colours: tuple[int, int, int], padding: bytes = b"\0") -> bytes:
    return b"".join(bytes(colour[::-1]) + padding for colour in colours)


def runs(*, packed: bool) -> bytes:
    """Return run-length rows, from the lowest on."""
    rows = ((SIDE // 2, int(row[0]), SIDE // 2, int(row[-1])) for row in INDICES[::-1])
    factor = 17 if packed else 1
    return b"".join(bytes([n, a * factor, m, b * factor, 0, 0]) for n, a, m, b in rows) + b"\0\1"


def runs_with_an_empty_row() -> bytes:
    """Return run-length rows of which the middle one, all of the first colour, has no run."""
    rows = [bytes([SIDE, int(row[0] or 1), 0, 0]) for row in INDICES[::-1]]
    rows[SIDE // 2] = bytes([0, 0])
    return b"".join(rows) + b"\0\1"


def packed(*shifts: tuple[int, int]) -> bytes:
    """Return 16-bit pixels, from the lowest row on; each channel loses bits, and is shifted."""
    channels = (COLOURS[..., at].astype(np.uint16) >> lost << up for at, (lost, up) in enumerate(shifts))
    found: np.ndarray = sum(channels, np.zeros((SIDE, SIDE), np.uint16))
    return found.astype("<u2")[::-1].tobytes()


def os2() -> bytes:
    body = INDICES[::-1].tobytes()
    start = 14 + 12 + 3 * len(PALETTE)
    head = b"BM" + struct.pack("<IHHIIHHHH", start + len(body), 0, 0, start, 12, SIDE, SIDE, 1, 8)
    return head + table(*PALETTE, padding=b"") + body


def counted_wrong() -> bytes:
    data = bmp(8, INDICES[::-1].tobytes(), table=table(*PALETTE))
    return data[:34] + struct.pack("<I", len(data)) + data[38:]


def padded_strip() -> bytes:
    return tiff(np.pad(COLOURS, ((0, 9), (0, 0), (0, 0))), tags={257: [SIDE], 278: [SIDE]})


def interlaced() -> bytes:
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in steps for row in COLOURS[y::dy, x::dx])
    return _png(1, chunk(b"IDAT", zlib.compress(rows)))


def scattered() -> bytes:
    """Return a PNG whose data lie in many chunks, some of them empty."""
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in COLOURS))
    parts = (chunk(b"IDAT", data[at : at + 7]) + chunk(b"IDAT", b"") for at in range(0, len(data), 7))
    return _png(0, b"".join(parts))


def _png(interlace: int, pixels: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def bilevel(compression: str) -> bytes:
    return encoded(Image.fromarray(BITS), "TIFF", compression=compression)


def reversed_bits() -> bytes:
    values = np.packbits(BITS, axis=1, bitorder="little")
    return tiff(values, tags={256: [SIDE], 258: [1], 262: [1], 266: [2]})


KINDS: dict[str, tuple[Callable[[], bytes], np.ndarray, int]] = {
    "BMP of 5, 5 and 5 bits": (lambda: bmp(16, packed((3, 10), (3, 5), (3, 0))), COLOURS, 8),
    "BMP of 5, 6 and 5 bits": (
        lambda: bmp(
            16, packed((3, 11), (2, 5), (3, 0)), compression=3, masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F)
        ),
        COLOURS,
        8,
    ),
    "BMP of 32 bits": (lambda: bmp(32, BLUE_GREEN_RED[::-1].tobytes()), COLOURS, 0),
    "BMP from the top": (lambda: bmp(32, BLUE_GREEN_RED.tobytes(), height=-SIDE), COLOURS, 0),
    "BMP of runs": (lambda: bmp(8, runs(packed=False), compression=1, table=table(*PALETTE)), COLOURS, 0),
    "BMP of runs with an empty row": (
        lambda: bmp(8, runs_with_an_empty_row(), compression=1, table=table(*BLACK_FIRST)), EMPTY_ROW, 0,
    ),
    "BMP of runs of 4 bits": (lambda: bmp(4, runs(packed=True), compression=2, table=table(*PALETTE)), COLOURS, 0),
    "BMP of 1 bit, white first": (
        lambda: bmp(1, np.packbits(BITS, axis=1)[::-1].tobytes(), table=table((255, 255, 255), (0, 0, 0))),
        255 - WHITE_AND_BLACK,
        0,
    ),
    "BMP of OS/2": (os2, COLOURS, 0),
    "BMP that counts its file as pixels": (counted_wrong, COLOURS, 0),
    "PNG in seven passes": (interlaced, COLOURS, 0),
    "PNG in many chunks": (scattered, COLOURS, 0),
    "PNG with significant bits": (
        lambda: png(COLOURS, bits=8, colour=2, before=chunk(b"sBIT", b"\5\5\5")), COLOURS, 0,
    ),
    "TIFF of CIELab": (lambda: encoded(LAB, "TIFF"), COLOURS, 8),
    "TIFF of CMYK": (lambda: encoded(IMAGE.convert("CMYK"), "TIFF"), COLOURS, 1),
    "TIFF of YCbCr": (lambda: encoded(IMAGE.convert("YCbCr"), "TIFF"), COLOURS, 3),
    "TIFF of JPEG": (lambda: encoded(IMAGE, "TIFF", compression="jpeg", quality=97), COLOURS, 8),
    "TIFF of LZW differences": (lambda: encoded(IMAGE, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}), COLOURS, 0),
    "TIFF of planes": (lambda: tiff(COLOURS, planes=True, deflate=True, tile=16), COLOURS, 0),
    "TIFF of fax group 3": (lambda: bilevel("group3"), WHITE_AND_BLACK, 0),
    "TIFF of fax group 4": (lambda: bilevel("group4"), WHITE_AND_BLACK, 0),
    "TIFF of PackBits": (lambda: bilevel("packbits"), WHITE_AND_BLACK, 0),
    "TIFF of bits in the other order": (reversed_bits, WHITE_AND_BLACK, 0),
    "TIFF with a padded strip": (padded_strip, COLOURS, 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
def test_colours_are_those_that_were_stored(read: Read, kind: str) -> None:
    write, expected, tolerance = KINDS[kind]
    found = np.asarray(read(write(), config={"size": SIDE}).image, int)
    assert np.abs(found - expected).max() <= tolerance


@pytest.mark.parametrize("compression", [1, 32773])
def test_a_tiff_predictor_that_programs_read_in_two_ways_is_refused(read: Read, compression: int) -> None:
    with pytest.raises(UnsupportedImage, match="predictor"):
        read(tiff(COLOURS, tags={259: [compression], 317: [2]}))


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_a_fourth_plane_of_a_tiff_leaves_the_colours_as_they_are(read: Read, extra: int) -> None:
    values = np.dstack([COLOURS, np.full((SIDE, SIDE), 255, np.uint8)])
    found = read(tiff(values, planes=True, tags={338: [extra]}), config={"size": SIDE})
    assert (np.asarray(found.image) == COLOURS).all()


@pytest.mark.parametrize("masks", [(0xF00, 0xF00, 0xF), (0, 0, 0), (0xF0F0, 0xF00, 0xF)], ids=str)
def test_a_bmp_of_bit_fields_that_mean_nothing_is_refused_by_name(read: Read, masks: tuple[int, int, int]) -> None:
    with pytest.raises(UnsupportedImage, match="BMP pixels"):
        read(bmp(16, packed((4, 8), (4, 4), (4, 0)), compression=3, masks=struct.pack("<III", *masks)))


def test_pixels_that_the_runs_of_a_bmp_skip_have_no_colour(read: Read) -> None:
    with pytest.raises(UnsupportedImage, match="skips pixels"):
        read(bmp(8, runs_with_an_empty_row(), compression=1, table=table(*PALETTE)))


@pytest.mark.parametrize("deflate", [False, True])
def test_deep_samples_in_the_other_order_of_bits_are_read(read: Read, deflate: bool) -> None:
    values = COLOURS.astype(np.uint16) * 257
    plain = tiff(values, deflate=deflate, tags={266: [2]})
    ((start,), (length,)) = read_directories(plain, most=1)[0].parts
    turned = np.packbits(np.unpackbits(np.frombuffer(plain[start : start + length], np.uint8), bitorder="little"))
    found = read(plain[:start] + turned.tobytes() + plain[start + length :], config={"size": SIDE})
    assert (np.asarray(found.image) == COLOURS).all()


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(np.roll(COLOURS, 5 * index, axis=1)) for index in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_frame_of_an_animation_is_the_whole_image_of_its_time(read: Read, kind: str) -> None:
    for frame in range(3):
        found = np.asarray(read(animated(kind), config={"size": SIDE}, frame=frame).image)
        assert (found == np.roll(COLOURS, 5 * frame, axis=1)).all()


def test_a_jpeg_without_a_height_is_refused(read: Read) -> None:
    data = bytearray(encoded(IMAGE, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 7] = b"\0\0"
    with pytest.raises(UnreadableImage, match="damaged"):
        read(bytes(data))
