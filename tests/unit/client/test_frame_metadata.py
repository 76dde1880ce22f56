"""Nothing but pixels is left in the compressed frames of a DICOM file that is sent without its tags."""

import io
import struct

import jpeg_ls
import numpy as np
import PIL.Image
import pytest
from openjpeg.utils import encode_array
from PIL import ExifTags
from pydicom import dcmread
from pydicom.uid import (
    JPEG2000,
    MPEG4HP41,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medmoe.client.errors import InvalidInput
from medmoe.client.images.code_stream import without_metadata
from medmoe.client.images.dicom import pixels_only
from medmoe.server.imaging.decoder_config import ImageLimits
from medmoe.server.imaging.formats.dicom.file import DicomFile
from medmoe.server.imaging.formats.dicom.rendering import show
from tests.support.images.dicom_elements import file, fragments, run_length
from tests.support.images.hostile_images import encoded
from tests.support.images.lossless_jpeg import lossless_jpeg

SECRET = b"DOE7Q"
COLOURS = np.random.default_rng(5).integers(0, 256, (8, 10, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
GREY = np.ascontiguousarray(COLOURS[..., 0])
SHAPE = (32, 40)
TEXT = SECRET * 300
"""Long enough for its blank place to be taken for lost data, if that were zeros."""


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


COMMENTS = (
    segment(0xFE, TEXT) + segment(0xE1, b"Exif\0\0" + TEXT) + segment(0xED, TEXT) + segment(0xE8, b"SPIFF\0" + TEXT)
)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def baseline(**options: object) -> bytes:
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Artist] = TEXT.decode()
    image = PIL.Image.fromarray(COLOURS)
    stream = encoded(image, "JPEG", exif=exif, comment=TEXT, icc_profile=TEXT, quality=95, **options)
    thumbnail = segment(0xE0, b"JFIF\0\1\2\1\0\x48\0\x48" + bytes([16, len(TEXT) // 48]) + TEXT)
    at = 4 + int.from_bytes(stream[4:6], "big")
    return stream[:2] + thumbnail + stream[at:] + TEXT


def rgb_jpeg() -> bytes:
    stream = encoded(PIL.Image.fromarray(COLOURS), "JPEG", keep_rgb=True, comment=TEXT, quality=95)
    return stream[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0" + SECRET) + stream[2:]


def before_the_frame(stream: bytes, marker: bytes) -> bytes:
    at = stream.index(marker)
    return stream[:at] + COMMENTS + stream[at:]


def jpeg_ls_colours() -> bytes:
    red, green, blue = (COLOURS[..., at].astype(int) for at in range(3))
    coded = np.stack([(red - green + 128) % 256, green, (blue - green + 128) % 256], axis=-1).astype(np.uint8)
    stream = bytes(jpeg_ls.encode_array(coded, interleave_mode=2))
    return stream[:2] + segment(0xE8, b"mrfx\1") + COMMENTS + stream[2:] + TEXT


def jpeg_ls_planes() -> bytes:
    return bytes(jpeg_ls.encode_array(np.ascontiguousarray(np.moveaxis(COLOURS, -1, 0)), interleave_mode=0))


def jpeg_2000() -> bytes:
    """Return a code stream with a comment in its main header, in that of its tile, and behind its end."""
    stream, comment = bytes(encode_array(COLOURS, bits_stored=8)), segment(0x64, b"\0\1" + TEXT)
    tile, data = stream.index(b"\xff\x90"), stream.index(b"\xff\x93")
    (size,) = struct.unpack_from(">I", stream, tile + 6)
    longer = struct.pack(">I", size + len(comment) if size else 0)
    tiles = stream[tile : tile + 6] + longer + stream[tile + 10 : data] + comment + stream[data:]
    return stream[:tile] + comment + tiles + TEXT


def jp2() -> bytes:
    stream = encoded(PIL.Image.fromarray(COLOURS), "JPEG2000", comment=TEXT)
    at = stream.index(b"jp2c") - 4
    whole = stream[:at] + box(b"xml ", TEXT) + stream[at:]
    assert struct.unpack_from(">I", stream, at) != (0,)
    return whole + box(b"uuid", bytes(16) + TEXT)


STREAMS = {
    "JPEG": (JPEGBaseline8Bit, baseline(), "YBR_FULL_422"),
    "progressive JPEG": (JPEGBaseline8Bit, baseline(progressive=True), "YBR_FULL_422"),
    "RGB JPEG": (JPEGBaseline8Bit, rgb_jpeg(), "RGB"),
    "lossless JPEG": (
        JPEGLosslessSV1, before_the_frame(lossless_jpeg(COLOURS.astype(np.uint16), bits=8), b"\xff\xc3"), "RGB",
    ),
    "JPEG-LS": (JPEGLSLossless, jpeg_ls_colours(), "RGB"),
    "JPEG-LS by plane": (
        JPEGLSLossless, before_the_frame(jpeg_ls_planes(), b"\xff\xf7") + TEXT, "RGB",
    ),
    "JPEG 2000": (JPEG2000Lossless, jpeg_2000(), "YBR_RCT"),
    "JP2": (JPEG2000, jp2(), "RGB"),
}  # fmt: skip


def shown(data: bytes, *, frame: int = 0) -> tuple[bytes, object]:
    limits = ImageLimits(max_pixels=10**7, min_side=1, max_aspect_ratio=100, max_frames=100)
    image, rendering, _ = show(DicomFile(data, frame=frame, limits=limits, burned_in="accept"), ())
    return image.tobytes(), rendering.steps


@pytest.mark.parametrize("pieces", [1, 7], ids=["whole", "in fragments"])
@pytest.mark.parametrize("kind", list(STREAMS))
def test_a_compressed_frame_keeps_its_pixels_alone(kind: str, pieces: int) -> None:
    syntax, stream, colour = STREAMS[kind]
    length = -(-len(stream) // pieces) // 2 * 2 + 2
    parts = [stream[at : at + length] for at in range(0, len(stream), length)]
    data = file(fragments(*parts), {0x00280008: ("IS", "1")}, syntax=syntax, colour=colour, bits=8, shape=SHAPE)
    assert SECRET in data
    bare = pixels_only(data).data
    assert SECRET[-3:] not in bare
    assert shown(bare) == shown(data)
    assert pixels_only(bare).data == bare


@pytest.mark.parametrize("table", [True, False])
def test_each_of_several_frames_keeps_its_pixels_alone(table: bool) -> None:
    grey = [encoded(PIL.Image.fromarray(each), "JPEG", comment=TEXT) for each in (GREY, GREY[::-1])]
    offsets = (0, 8 + len(grey[0]) + len(grey[0]) % 2) if table else ()
    data = file(
        fragments(*grey, table=offsets), {0x00280008: ("IS", "2")}, syntax=JPEGBaseline8Bit, bits=8, shape=SHAPE
    )
    bare = pixels_only(data).data
    assert SECRET not in bare
    assert [shown(bare, frame=at) for at in (0, 1)] == [shown(data, frame=at) for at in (0, 1)]


def test_a_run_length_frame_goes_as_it_is() -> None:
    stream = run_length([GREY.tobytes()])
    data = file(fragments(stream), syntax=RLELossless, bits=8, shape=SHAPE)
    assert stream in pixels_only(data).data


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        (MPEG4HP41, b"\0\0\0\x20ftypisom" + SECRET * 20),
        ("1.2.840.10008.1.2.4.110", b"\xff\x0a" + SECRET * 20),
        (JPEGBaseline8Bit, SECRET * 20),
        (JPEGBaseline8Bit, baseline()[:2] + SECRET + baseline()[2:]),
        (JPEGBaseline8Bit, baseline().replace(b"\xff\xdb", SECRET + b"\xff\xdb", 1)),
        (JPEG2000, jpeg_2000()[:2] + SECRET + jpeg_2000()[2:]),
        (JPEG2000, jp2()[:12] + struct.pack(">I4s", 4, b"uuid") + SECRET + jp2()[12:]),
    ],
    ids=["video", "JPEG XL", "text", "JPEG", "JPEG between segments", "JPEG 2000", "JP2"],
)
def test_a_frame_that_cannot_be_followed_is_not_sent(syntax: str, stream: bytes) -> None:
    data = file(fragments(stream), syntax=syntax, colour="RGB", bits=8, shape=SHAPE)
    with pytest.raises(InvalidInput, match="compressed frame"):
        pixels_only(data)


def test_a_stream_that_is_cut_off_keeps_its_length() -> None:
    stream = baseline()
    for length in range(12, 40):
        assert len(without_metadata(stream[:length])) == length


def test_pixel_data_with_something_behind_their_frames_are_not_sent() -> None:
    stream = encoded(PIL.Image.fromarray(GREY), "JPEG")
    dataset = dcmread(io.BytesIO(file(fragments(stream), syntax=JPEGBaseline8Bit, bits=8, shape=SHAPE)))
    pixels_only(dataset)
    dataset["PixelData"].value += SECRET
    with pytest.raises(InvalidInput, match="compressed frames"):
        pixels_only(dataset)
