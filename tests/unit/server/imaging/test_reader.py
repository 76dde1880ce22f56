"""PNG, JPEG, WebP, TIFF, BMP as clients send them, hostile ones too: an image or a typed refusal."""

import base64
import io
import struct
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmoe.server.errors import (
    ImageTooCostly,
    ImageTooLarge,
    InvalidField,
    MalformedImage,
    RequestError,
    UnreadableImage,
    UnsupportedImage,
)
from medmoe.server.imaging.formats.sniff import from_text
from tests.support.images.dicom_files import dicom, gradient
from tests.support.images.hostile_images import BOMBS, encoded, png
from tests.unit.server.conftest import Read

SECRET = "SECRET-at-0x7f2a"
SHADES = (10, 120, 230)


def noise(size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def shades(kind: str) -> bytes:
    first, *rest = (Image.new("RGB", (32, 32), (shade,) * 3) for shade in SHADES)
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    return encoded(first, kind, save_all=True, append_images=rest, **options)


@pytest.mark.parametrize("kind", list(BOMBS))
@pytest.mark.parametrize("size", [(7000, 7000), (16_000, 16_000), (16_000, 800)], ids=str)
def test_a_bomb_is_refused_before_it_is_decoded(
    read: Read, kind: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", decode)
    with pytest.raises(ImageTooLarge):
        read(BOMBS[kind](*size))


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_pillows_own_alarm_is_the_same_refusal(read: Read, side: int) -> None:
    with pytest.raises(ImageTooLarge):
        read(png(side, side))


@pytest.mark.parametrize("kind", [kind for kind in BOMBS if kind != "JPEG"])
def test_a_header_that_lies_within_the_limits_is_a_damaged_image(read: Read, kind: str) -> None:
    with pytest.raises(UnreadableImage, match="damaged"):
        read(BOMBS[kind](900, 700))


def test_a_jpeg_whose_scan_ends_early_in_good_order_lacks_scan_data(read: Read) -> None:
    with pytest.raises(UnreadableImage, match="scan data"):
        read(BOMBS["JPEG"](900, 700))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_refused(read: Read, kind: str, kept: float) -> None:
    data = encoded(noise((200, 200)), kind)
    with pytest.raises(UnreadableImage):
        read(data[: int(len(data) * kept)])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("size", [(1, 1), (1, 60), (400, 15), (640, 31)], ids=str)
def test_too_small_and_too_long_images_are_refused(read: Read, kind: str, size: tuple[int, int]) -> None:
    with pytest.raises(UnreadableImage, match=r"pixels|as long as wide"):
        read(encoded(noise(size), kind), config={"min_side": 16})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("size", [(1, 1), (1, 20), (20, 1)], ids=str)
def test_a_pixel_is_an_image_where_the_deployment_says_so(read: Read, kind: str, size: tuple[int, int]) -> None:
    decoded = read(encoded(noise(size), kind), allow_uniform=True)
    assert (decoded.width, decoded.height, decoded.image.size) == (*size, (32, 32))


@pytest.mark.parametrize(
    "failure",
    [SyntaxError, struct.error, EOFError, ZeroDivisionError, RecursionError, Image.DecompressionBombWarning],
)
def test_whatever_pillow_raises_is_ours_and_says_nothing(
    read: Read, failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise failure(SECRET)

    monkeypatch.setattr("PIL.Image.open", broken)
    with pytest.raises(RequestError) as caught:
        read(encoded(noise(), "PNG"))
    assert SECRET not in str(caught.value)


def test_an_end_of_memory_is_named_even_when_a_library_wraps_it(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        try:
            raise MemoryError
        except MemoryError as error:
            raise RuntimeError(SECRET) from error

    monkeypatch.setattr("PIL.Image.open", broken)
    with pytest.raises(ImageTooCostly, match="memory"):
        read(encoded(noise(), "PNG"))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x89PNG", b"GIF89a" + bytes(200), b"%PDF-1.7", b"PK\x03\x04", b"<svg/>", b"8BPS", b"SIMPLE  =",
        b"\x00\x00\x00\x0cjP  \r\n", b"RIFF\x00\x00\x00\x00AVI ", b"#!MC", bytes(127) + b"DICM", b"\xef\xbb\xbfDICM",
    ],
    ids=repr,
)  # fmt: skip
def test_other_formats_are_not_even_tried(read: Read, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.open", None)
    with pytest.raises(UnsupportedImage):
        read(data)


@pytest.mark.parametrize(
    ("data", "name", "way_out"),
    [
        (b"GIF89a", "GIF", "PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC", "heif-convert"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF", "PNG"),
        (b"\0\0\0\x18ftypmp42", "video", "frame"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", "opj_decompress"),
        (b"\xff\x4f\xff\x51\0\x29", "JPEG 2000", "opj_decompress"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL", "djxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "djxl"),
        (b"\x5c\x01\0\0" + bytes(340) + b"n+1\0", "NIfTI", "/v1/series"),
        (b"\x1c\x02\0\0n+2\0\r\n\x1a\n", "NIfTI", "/v1/series"),
        (b"\x5c\x01\0\0" + bytes(344), "Analyze", "/v1/series"),
        (b"\x1f\x8b\x08\0", "gzip", "gunzip"),
        (b"NRRD0004\ntype: short", "NRRD", "/v1/series"),
        (b"ObjectType = Image\nNDims = 3", "MetaImage", "/v1/series"),
        (b"PK\x03\x04", "ZIP", "/v1/series"),
        (b"%PDF-1.7", "PDF", "pdftoppm"),
        (b"P5\n2 2\n255\n", "PNM", "pnmtopng"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_format_that_is_not_read_is_named_with_a_way_out(read: Read, data: bytes, name: str, way_out: str) -> None:
    with pytest.raises(UnsupportedImage) as caught:
        read(data + bytes(400))
    assert name in str(caught.value)
    assert way_out in str(caught.value)


@pytest.mark.parametrize("tail", [b"PK\x03\x04" + bytes(60), b"<script>alert(1)</script>", b"%PDF-1.7\n%%EOF", b"MZ"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_what_follows_an_image_is_ignored(read: Read, kind: str, tail: bytes) -> None:
    data = encoded(noise(), kind)
    assert read(data + tail).image.tobytes() == read(data).image.tobytes()


def test_an_image_in_the_preamble_of_a_dicom_file_is_not_the_image(read: Read) -> None:
    data = dicom(gradient())
    disguised = encoded(Image.new("L", (4, 4)), "TIFF")[:128].ljust(128, b"\0") + data[128:]
    decoded = read(disguised)
    assert decoded.rendering.format == "DICOM"
    assert decoded.image.tobytes() == read(data).image.tobytes()


def test_the_first_bytes_decide_and_not_what_else_a_file_could_be(read: Read) -> None:
    with pytest.raises(UnreadableImage):
        read(b"BM" + encoded(noise(), "PNG"))
    with pytest.raises(UnreadableImage):
        read(b"\xff\xd8\xff\xe0" + encoded(noise(), "PNG"))


@pytest.mark.parametrize("text", ["%%%", "AAAAA", "data:image/png,abc", "https://intra.net/a.png", "b\u00e9="])
def test_text_must_be_base64(read: Read, text: str) -> None:
    with pytest.raises(MalformedImage):
        read(text)


def test_base64_and_bytes_are_the_same_image(read: Read) -> None:
    data = encoded(noise(), "PNG")
    text = base64.b64encode(data).decode()
    assert read(text).sha256 == read(f"data:image/png;base64,{text}").sha256 == read(data).sha256


@pytest.mark.parametrize(("kind", "frames"), [("PNG", 3), ("WEBP", 3), ("TIFF", 3)])
def test_frames_are_chosen_by_number_and_the_first_is_the_default(read: Read, kind: str, frames: int) -> None:
    data = shades(kind)
    assert read(data, allow_uniform=True).image.getpixel((16, 16)) == (SHADES[0],) * 3
    for number, shade in enumerate(SHADES):
        decoded = read(data, frame=number, allow_uniform=True)
        assert decoded.image.getpixel((16, 16)) == (shade,) * 3
        assert (decoded.rendering.frame, decoded.rendering.frames) == (number, frames)
    with pytest.raises(InvalidField, match="3") as caught:
        read(data, frame=3)
    assert caught.value.param == "frame"


def test_too_many_frames_are_refused(read: Read) -> None:
    for kind in ("PNG", "WEBP", "TIFF"):
        with pytest.raises(ImageTooLarge, match="over 2 frames"):
            read(shades(kind), config={"max_frames": 2})


def test_a_later_page_is_held_to_the_same_limits(read: Read) -> None:
    pages = [Image.new("L", (32, 32)), Image.new("L", (900, 1))]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    read(data, frame=0, allow_uniform=True)
    with pytest.raises(UnreadableImage, match="as long as wide"):
        read(data, frame=1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damage_behind_the_first_page_is_no_reason_to_refuse_it(read: Read) -> None:
    file = io.BytesIO(encoded(noise(), "TIFF"))
    data = bytearray(file.getvalue())
    (directory,) = struct.unpack("<I", data[4:8])
    (entries,) = struct.unpack("<H", data[directory : directory + 2])
    data[directory + 2 + 12 * entries :][:4] = b""
    at = directory + 2 + 12 * entries
    data[at : at + 4] = struct.pack("<I", 10**6)
    assert read(bytes(data)).rendering.frames == 1


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "PNG"])
def test_fields_that_do_not_apply_are_refused_and_not_ignored(read: Read, kind: str) -> None:
    data = encoded(noise(), kind)
    for fields in ({"window": "40/400"}, {"window": "full"}, {"frame": 1}):
        with pytest.raises(InvalidField) as caught:
            read(data, **fields)
        assert caught.value.param in fields
    assert read(data, frame=0).image.tobytes() == read(data).image.tobytes()


def test_what_was_done_is_told(read: Read) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read(encoded(noise((40, 30)), "JPEG", exif=exif)).rendering
    assert (turned.colour, turned.steps) == ("RGB", ("orientation",))
    deep = read(encoded(Image.fromarray(gradient(dtype=np.uint16, low=0)), "PNG")).rendering
    assert (deep.colour, deep.steps) == ("I;16", ("stretch",))
    assert read(encoded(noise(mode="RGBA"), "PNG")).rendering.steps == ("over_black",)
    assert read(encoded(noise(mode="CMYK"), "JPEG")).rendering.colour == "CMYK"


@pytest.mark.parametrize("text", ["A" * 2**24 + "\u00e9", "\u00e9" * 2**24], ids=["last", "all"])
def test_a_letter_outside_of_ascii_is_found_at_once(text: str) -> None:
    """It took 2 s, and for the largest body more than an image may take."""
    begun = time.process_time()
    with pytest.raises(MalformedImage):
        from_text(text)
    assert time.process_time() - begun < 0.5
