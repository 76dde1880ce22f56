"""Compressed images of which a part is missing, in a file of good order."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, RLELossless

from medmoe.server.errors import UnreadableImage, UnsupportedImage
from tests.support.images import twelve_bit_jpeg
from tests.support.images.dicom_elements import file, fragments, run_length
from tests.support.images.hostile_images import encoded
from tests.support.images.lossless_jpeg import lossless_jpeg
from tests.support.images.tiff_files import tiff
from tests.unit.server.conftest import Read

SIDE = 256
END = b"\xff\xd9"
CHANCE = np.random.default_rng(0)
GREY = (np.add.outer(np.arange(SIDE), np.arange(SIDE)) / 2 + CHANCE.normal(0, 12, (SIDE, SIDE))).clip(0, 255)
IMAGE = Image.fromarray(GREY.astype(np.uint8))
FILES = {
    "baseline": encoded(IMAGE, "JPEG"),
    "colours": encoded(IMAGE.convert("RGB"), "JPEG"),
    "progressive": encoded(IMAGE.convert("RGB"), "JPEG", progressive=True),
    "restart markers": encoded(IMAGE, "JPEG", restart_marker_blocks=8),
    "optimised": encoded(IMAGE, "JPEG", optimize=True),
}
DEEP = (GREY[:64, :64] * 16).astype(np.uint16)
FORMATS = ("PNG", "BMP", "BMP of runs", "BMP of runs of 4 bits", "WEBP", "lossless WEBP", "TIFF", "TIFF of tiles")
TIFFS = {"TIFF of LZW": "tiff_lzw", "TIFF of PackBits": "packbits", "TIFF of JPEG": "jpeg"}
TIFFS |= {"TIFF of LZMA": "lzma", "TIFF of Zstandard": "zstd"}
Damage = Callable[[bytes, int], bytes]
DAMAGES: dict[str, Damage] = {
    "cut with an end marker": lambda data, kept: data[:kept] + END,
    "zeros": lambda data, kept: data[:kept] + bytes(len(data) - kept),
    "zeros and the end": lambda data, kept: data[:kept] + bytes(len(data) - kept - 64) + data[-64:],
    "zeros within": lambda data, kept: data[:kept] + bytes((len(data) - kept) // 2) + data[(len(data) + kept) // 2 :],
}


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("kind", list(FILES))
def test_a_jpeg_without_all_its_data_is_refused_alone_and_in_dicom(
    read: Read, kind: str, damage: str, share: float
) -> None:
    data = FILES[kind]
    broken = DAMAGES[damage](data, int(len(data) * share))
    with pytest.raises(UnreadableImage, match="damaged"):
        read(broken)
    colour = "YBR_FULL_422" if kind in ("colours", "progressive") else "MONOCHROME2"
    with pytest.raises(UnreadableImage, match="damaged"):
        read(file(fragments(broken), syntax=JPEGBaseline8Bit, shape=(SIDE, SIDE), bits=8, colour=colour))


def resized(data: bytes, width: int, height: int) -> bytes:
    """Return a JPEG whose header announces another size."""
    changed = bytearray(data)
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    changed[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(changed)


@pytest.mark.parametrize("size", [(SIDE, SIDE - 16), (SIDE - 16, SIDE), (SIDE // 2, SIDE), (SIDE, SIDE + 48)])
@pytest.mark.parametrize("kind", list(FILES))
def test_a_jpeg_whose_header_announces_another_size_is_refused_alone_and_in_dicom(
    read: Read, kind: str, size: tuple[int, int]
) -> None:
    data = resized(FILES[kind], *size)
    with pytest.raises(UnreadableImage, match="damaged"):
        read(data)
    colour = "YBR_FULL_422" if kind in ("colours", "progressive") else "MONOCHROME2"
    with pytest.raises(UnreadableImage, match="damaged"):
        read(file(fragments(data), syntax=JPEGBaseline8Bit, shape=size[::-1], bits=8, colour=colour))


def with_sizes(data: bytes, width: int, height: int) -> bytes:
    """Return a little-endian TIFF of one strip that announces another size."""
    changed = bytearray(data)
    for tag, value in ((256, width), (257, height), (278, height)):
        at = next(at for at in (changed.find(struct.pack("<HHI", tag, kind, 1)) for kind in (3, 4)) if at >= 0)
        changed[at : at + 12] = struct.pack("<HHII", tag, 4, 1, value)
    return bytes(changed)


def run_length_bmp(width: int, height: int, *, packed: bool) -> bytes:
    """Return a BMP of rows in two runs, each of half of SIDE pixels, whose header announces another size."""
    bits = 4 if packed else 8
    half, factor = SIDE // 2, 17 if packed else 1
    rows = (bytes([half, row % 16 * factor, half, (row + 5) % 16 * factor, 0, 0]) for row in range(SIDE))
    body = b"".join(rows) + b"\0\1"
    table = b"".join(bytes([16 * shade] * 3 + [0]) for shade in range(16))
    head = b"BM" + struct.pack("<IHHI", 54 + len(table) + len(body), 0, 0, 54 + len(table))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 2 if packed else 1, len(body), 0, 0, 16, 0)
    return head + info + table + body


def announced(kind: str, width: int, height: int) -> bytes:
    """Return a file of SIDE rows and columns whose header announces others."""
    colours = IMAGE.convert("RGB")
    if kind == "PNG":
        data = encoded(colours, "PNG")
        header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
        return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    if kind == "BMP":
        data = encoded(colours, "BMP")
        return data[:18] + struct.pack("<II", width, height) + data[26:]
    if kind.startswith("BMP of runs"):
        return run_length_bmp(width, height, packed="4" in kind)
    if kind == "WEBP":
        data = encoded(colours, "WEBP")
        at = data.index(b"\x9d\x01\x2a") + 3
        return data[:at] + struct.pack("<HH", width, height) + data[at + 4 :]
    if kind == "lossless WEBP":
        data = encoded(colours, "WEBP", lossless=True)
        return data[:21] + struct.pack("<I", width - 1 | height - 1 << 14) + data[25:]
    if kind in TIFFS:
        written = encoded(colours, "TIFF", compression=TIFFS[kind], strip_size=2**20)
        return with_sizes(written, width, height)
    tags = {256: [width], 257: [height]}
    tile = 64 if kind == "TIFF of tiles" else 0
    return tiff(np.asarray(colours), deflate=kind == "TIFF of Deflate", tile=tile, tags=tags)


@pytest.mark.parametrize("size", [(SIDE, SIDE - 64), (SIDE // 2, SIDE)])
@pytest.mark.parametrize(
    "kind",
    [*FORMATS, "TIFF of Deflate", *TIFFS],
)
def test_a_file_that_holds_more_than_its_header_announces_is_refused(
    read: Read, kind: str, size: tuple[int, int]
) -> None:
    read(announced(kind, SIDE, SIDE))
    with pytest.raises(UnreadableImage, match="damaged"):
        read(announced(kind, *size))


def announced_in_dicom(kind: str, rows: int, columns: int) -> bytes:
    """Return a DICOM file of DEEP's rows and columns whose headers announce others."""
    shape = {"shape": (rows, columns), "stored": 12}
    if kind == "uncompressed":
        return file(DEEP, **shape)
    if kind == "bits":
        return file(np.packbits(DEEP.mean() < DEEP, bitorder="little"), bits=1, shape=(rows, columns))
    if kind == "run length":
        high, low = ((DEEP >> shift & 255).astype(np.uint8).tobytes() for shift in (8, 0))
        return file(fragments(run_length([high, low])), syntax=RLELossless, **shape)
    if kind == "deflated":
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return file(
            fragments(deflater.compress(DEEP.tobytes()) + deflater.flush()), syntax="1.2.840.10008.1.2.8.1", **shape
        )
    if kind == "lossless JPEG":
        stream = bytearray(lossless_jpeg(DEEP))
        at = stream.index(b"\xff\xc3")
        stream[at + 5 : at + 9] = struct.pack(">HH", rows, columns)
        return file(fragments(bytes(stream)), syntax=JPEGLosslessSV1, **shape)
    stream = bytearray(twelve_bit_jpeg.GREY)
    at = stream.index(b"\xff\xc1")
    # Of 32 rows and columns.
    stream[at + 5 : at + 9] = struct.pack(">HH", rows // 2, columns // 2)
    return file(fragments(bytes(stream)), syntax=JPEGExtended12Bit, shape=(rows // 2, columns // 2), stored=12)


@pytest.mark.parametrize("shape", [(48, 64), (64, 48)])
@pytest.mark.parametrize("kind", ["uncompressed", "bits", "run length", "deflated", "lossless JPEG", "JPEG of 12 bits"])
def test_a_dicom_file_that_holds_more_than_its_header_announces_is_refused(
    read: Read, kind: str, shape: tuple[int, int]
) -> None:
    read(announced_in_dicom(kind, 64, 64))
    with pytest.raises(UnreadableImage, match="damaged"):
        read(announced_in_dicom(kind, *shape))


@pytest.mark.parametrize("padding", [bytes(512), b"\xff" * 512, b"\1\2\3"])
def test_padding_behind_the_pixels_of_a_dicom_file_is_no_row(read: Read, padding: bytes) -> None:
    padded = np.frombuffer(DEEP.tobytes() + padding + b"\0" * (len(padding) % 2), np.uint8)
    assert read(file(padded, stored=12)).pixels == read(file(DEEP, stored=12)).pixels


def test_a_lossless_jpeg_that_ends_in_one_shade_is_whole(read: Read) -> None:
    for shade in (0, 2048, 4095):
        values = DEEP.copy()
        values[40:] = shade
        stream = lossless_jpeg(values)
        found = read(file(fragments(stream), syntax=JPEGLosslessSV1, stored=12))
        assert found.pixels == read(file(values, stored=12)).pixels


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_whose_pixels_end_before_its_last_row_is_refused(read: Read, interlaced: bool) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(IMAGE))
    whole = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, interlaced)

    def png(pixels: bytes) -> bytes:
        chunks = ((b"IHDR", whole), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )

    if not interlaced:
        read(png(rows))
    with pytest.raises(UnreadableImage, match="damaged"):
        read(png(rows[: SIDE * SIDE // 2]))


def test_a_jpeg_2000_frame_without_one_of_its_tiles_is_refused(read: Read) -> None:
    data = bytearray(encoded(IMAGE, "JPEG2000", no_jp2=True, tile_size=(64, 64)))
    read(file(fragments(bytes(data)), syntax=JPEG2000Lossless, shape=(SIDE, SIDE), bits=8))
    at = data.index(b"\xff\x51") + 6
    data[at : at + 8] = struct.pack(">II", SIDE - 64, SIDE)
    with pytest.raises(UnreadableImage, match="tiles"):
        read(file(fragments(bytes(data)), syntax=JPEG2000Lossless, shape=(SIDE, SIDE - 64), bits=8))


def test_a_thumbnail_in_the_metadata_of_a_jpeg_is_not_taken_for_its_scan(read: Read) -> None:
    thumbnail = resized(encoded(IMAGE.resize((64, 64)), "JPEG"), 64, 32)
    body = b"Exif\0\0" + thumbnail
    data = FILES["baseline"]
    within = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    assert read(within).pixels == read(data).pixels
    with pytest.raises(UnreadableImage, match="damaged"):
        read(resized(data, SIDE - 16, SIDE)[:2] + within[2 : len(body) + 6] + resized(data, SIDE - 16, SIDE)[2:])


def test_padding_before_the_end_marker_is_no_second_image(read: Read) -> None:
    for padding in (b"\0\0\0\0", b"\xff", b"\0\xff\xff"):
        assert read(FILES["baseline"].removesuffix(END) + padding + END).pixels == read(FILES["baseline"]).pixels


@pytest.mark.parametrize("kind", list(FILES))
def test_a_whole_jpeg_is_read(read: Read, kind: str) -> None:
    assert read(FILES[kind]).rendering.steps == ()


@pytest.mark.parametrize("kind", list(FILES))
def test_fill_bytes_before_the_end_marker_are_no_damage(read: Read, kind: str) -> None:
    data = FILES[kind].removesuffix(END) + b"\xff\xff" + END
    assert read(data).pixels == read(FILES[kind]).pixels
    colour = "YBR_FULL_422" if kind in ("colours", "progressive") else "MONOCHROME2"
    assert read(file(fragments(data), syntax=JPEGBaseline8Bit, shape=(SIDE, SIDE), bits=8, colour=colour))


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("damage", ["zeros", "zeros and the end", "zeros within"])
def test_a_webp_with_zeros_in_place_of_data_is_refused(read: Read, damage: str, lossless: bool) -> None:
    data = encoded(IMAGE.convert("RGB"), "WEBP", lossless=lossless)
    read(data)
    with pytest.raises(UnreadableImage, match="damaged"):
        read(DAMAGES[damage](data, len(data) // 10))


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_jpeg_2000_frame_without_all_its_data_is_refused(read: Read, damage: str) -> None:
    values = (GREY * 16).astype(np.uint16)
    data = encoded(Image.fromarray(values), "JPEG2000", no_jp2=True)
    read(file(fragments(data), syntax=JPEG2000Lossless, shape=(SIDE, SIDE)))
    with pytest.raises(UnreadableImage):
        read(file(fragments(DAMAGES[damage](data, len(data) // 10)), syntax=JPEG2000Lossless, shape=(SIDE, SIDE)))


def test_a_jpeg_2000_frame_without_coded_data_is_no_black_image(read: Read) -> None:
    data = encoded(IMAGE, "JPEG2000", no_jp2=True)
    empty = data[: data.index(b"\xff\x93") + 2] + END
    with pytest.raises(UnreadableImage, match="no coded data"):
        read(file(fragments(empty), syntax=JPEG2000Lossless, shape=(SIDE, SIDE), bits=8), allow_uniform=True)


@pytest.mark.parametrize("shade", [0, 128, 255])
@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}, {}], ids=str)
def test_large_flat_regions_are_no_damage(read: Read, shade: int, options: dict[str, bool]) -> None:
    flat = Image.new("L", (1600, 1200), shade)
    flat.paste(IMAGE, (900, 500))
    assert read(encoded(flat, "JPEG", **options)).rendering.steps == ()
    assert read(encoded(flat.convert("RGB"), "WEBP")).rendering.steps == ()
    assert read(encoded(flat.convert("RGB"), "WEBP", lossless=True)).rendering.steps == ()
    pixels = file(
        fragments(encoded(flat, "JPEG2000", no_jp2=True)), syntax=JPEG2000Lossless, shape=(1200, 1600), bits=8
    )
    assert read(pixels).rendering.steps == ()


@pytest.mark.parametrize(
    ("frame", "named"), [(0xC1, "JPEG of 12 bits"), (0xC3, "lossless JPEG"), (0xF7, "JPEG-LS"), (0xC5, "hierarchical")]
)
def test_a_jpeg_of_a_rare_coding_is_named_and_no_damage(read: Read, frame: int, named: str) -> None:
    data = bytearray(twelve_bit_jpeg.GREY)
    data[data.index(b"\xff\xc1") + 1] = frame
    with pytest.raises(UnsupportedImage, match=named):
        read(bytes(data))


def test_a_dicom_file_with_empty_pixel_data_holds_none(read: Read) -> None:
    with pytest.raises(UnreadableImage, match="holds no pixel data"):
        read(file(np.zeros(0, np.uint16)))
