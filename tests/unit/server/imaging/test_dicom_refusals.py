"""DICOM files that are refused before their pixel data are decoded, without a word of what is in them."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from medmoe.model.errors import MedMoEError
from medmoe.server.errors import BurnedInAnnotation, ImageTooLarge, UnreadableImage, UnsupportedImage
from medmoe.server.imaging.formats.dicom.transfer_syntax import DECODERS
from tests.support.images.dicom_elements import run_length
from tests.support.images.dicom_files import dicom, gradient
from tests.support.images.hostile_images import encoded, jpeg
from tests.unit.server.conftest import Read

CANARY = "Canary^Patient7f3q"
VALUES = gradient((32, 32))


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.as_array", decode)


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize(
    "syntax",
    [
        MPEG2MPML, "1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.110", "1.2.840.113619.5.2", "1.2.3.4",
    ],
    ids=str,
)  # fmt: skip
def test_transfer_syntaxes_off_the_list_are_refused(read: Read, syntax: str) -> None:
    data = dicom(VALUES)
    accepted = b"1.2.840.10008.1.2.1\0"
    length = struct.pack("<H", len(syntax) + len(syntax) % 2)
    at = data.index(b"\x02\x00\x10\x00UI")
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    data = data[: at + 6] + length + value + data[at + 8 + len(accepted) :]
    with pytest.raises(UnsupportedImage, match="transfer syntax"):
        read(data)


def test_every_accepted_transfer_syntax_has_its_decoder_installed() -> None:
    from pydicom.pixels import get_decoder

    for syntax, plugin in DECODERS.items():
        assert not plugin or plugin in get_decoder(syntax).available_plugins, syntax


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"Rows": 7000, "Columns": 7000}, ImageTooLarge),
        ({"Rows": 65535}, ImageTooLarge),
        ({"NumberOfFrames": 2001}, ImageTooLarge),
        ({"NumberOfFrames": 2**31 - 1}, ImageTooLarge),
        ({"NumberOfFrames": -1}, UnreadableImage),
        ({"Rows": 0}, UnreadableImage),
        ({"Rows": 1000, "Columns": 20}, UnreadableImage),
        ({"Rows": None}, UnreadableImage),
        ({"SamplesPerPixel": 3}, UnsupportedImage),
        ({"SamplesPerPixel": 4, "PhotometricInterpretation": "CMYK"}, UnsupportedImage),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_PARTIAL_420"}, UnsupportedImage),
        ({"PhotometricInterpretation": CANARY[:16]}, UnsupportedImage),
        ({"PhotometricInterpretation": None}, UnsupportedImage),
        ({"BitsAllocated": 24}, UnsupportedImage),
        ({"BurnedInAnnotation": "YES"}, BurnedInAnnotation),
        ({"BurnedInAnnotation": " yes"}, BurnedInAnnotation),
    ],
    ids=str,
)
def test_the_header_alone_is_enough_to_refuse(read: Read, attributes: dict[str, Any], error: type[MedMoEError]) -> None:
    with pytest.raises(error) as caught:
        read(dicom(VALUES, **attributes, PatientName=CANARY))
    assert "Canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "marked", "kind", "refused"),
    [
        ("refuse", "NO", {}, False),
        ("refuse", None, {"Modality": "US"}, False),
        ("refuse", "YES", {}, True),
        ("refuse_unless_clear", None, {}, False),
        ("refuse_unless_clear", "YES", {}, True),
        ("refuse_unless_clear", None, {"Modality": "US"}, True),
        ("refuse_unless_clear", "NO", {"Modality": "US"}, False),
        ("refuse_unless_clear", None, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ("refuse_unless_clear", None, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, True),
        ("refuse_unless_clear", "NO", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, False),
        ("accept", "YES", {"Modality": "US"}, False),
    ],
)
def test_text_in_the_image_is_the_deployments_decision(
    read: Read, policy: str, marked: str | None, kind: dict[str, Any], refused: bool
) -> None:
    data = dicom(VALUES, BurnedInAnnotation=marked, **kind)
    if refused:
        with pytest.raises(BurnedInAnnotation):
            read(data, config={"burned_in": policy})
    else:
        read(data, config={"burned_in": policy})


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSLossless, JPEG2000], ids=str)
@pytest.mark.parametrize(
    "frame",
    [
        jpeg(60_000, 60_000),
        encoded(Image.new("L", (64, 32)), "JPEG"),
        encoded(Image.new("RGB", (32, 32)), "JPEG"),
        encoded(Image.new("L", (33, 32)), "JPEG2000", no_jp2=True),
        encoded(Image.new("L", (64, 64)), "JPEG2000"),
        encoded(Image.new("L", (32, 32)), "PNG"),
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50,
        b"\xff\x4f\xff\x51\x00",
        bytes(64),
    ],
    ids=["bomb", "wider", "colours", "j2k", "jp2", "png", "empty", "loop", "cut", "zeros"],
)
def test_a_frame_must_be_what_the_header_says(read: Read, syntax: str, frame: bytes) -> None:
    with pytest.raises(UnreadableImage, match="frame"):
        read(dicom(np.zeros((32, 32), np.uint8), syntax=syntax, frames=[frame]))


@pytest.mark.usefixtures("undecoded")
def test_a_deflated_bomb_is_inflated_only_so_far(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmoe.server.imaging.formats.dicom.meta_header._LARGEST_INFLATED", 2**20)
    data = dicom(VALUES, syntax=DeflatedExplicitVRLittleEndian)
    head = data[: data.index(b"1.2.840.10008.1.2.1.99") + 22]
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(20 * 2**20)) + deflater.flush()
    assert len(bomb) < 2**15
    with pytest.raises(ImageTooLarge, match="inflated"):
        read(head + bomb)


def test_a_deflated_file_is_the_file(read: Read) -> None:
    plain = read(dicom(VALUES, WindowCenter=40, WindowWidth=300))
    deflated = read(dicom(VALUES, syntax=DeflatedExplicitVRLittleEndian, WindowCenter=40, WindowWidth=300))
    assert deflated.image.tobytes() == plain.image.tobytes()
    assert deflated.rendering == plain.rendering


def test_run_length_segments_outside_the_frame_are_refused(read: Read) -> None:
    header = struct.pack("<16I", 2, 64, 10**9, *[0] * 13)
    with pytest.raises(UnreadableImage):
        read(dicom(VALUES, syntax=RLELossless, frames=[header + b"\x81\x00" * 4000]))


HIGH, LOW = ((VALUES.view(np.uint16) >> shift & 255).astype(np.uint8).tobytes() for shift in (8, 0))


@pytest.mark.parametrize(
    ("segments", "attributes"),
    [
        ([HIGH + HIGH, LOW], {}),
        ([HIGH, LOW + LOW], {}),
        ([HIGH[:-1], LOW], {}),
        ([HIGH, LOW[:-1]], {}),
        ([HIGH], {}),
        ([HIGH, LOW, LOW], {}),
        ([LOW] * 15, {"BitsAllocated": 64, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}),
    ],
    ids=["high longer", "low longer", "high shorter", "low shorter", "one", "three", "fifteen of 24"],
)
def test_run_length_segments_must_be_those_of_the_pixels(
    read: Read, segments: list[bytes], attributes: dict[str, Any]
) -> None:
    assert read(dicom(VALUES, syntax=RLELossless, frames=[run_length([HIGH, LOW])])).rendering.format == "DICOM"
    with pytest.raises(UnreadableImage, match="damaged"):
        read(dicom(VALUES, syntax=RLELossless, frames=[run_length(segments)], **attributes))


@pytest.mark.parametrize("kept", [132, 140, 200, 300, 600, 1000, -2])
def test_a_truncated_file_is_refused(read: Read, kept: int) -> None:
    data = dicom(VALUES, PatientName=CANARY)
    with pytest.raises((UnreadableImage, UnsupportedImage)) as caught:
        read(data[:kept])
    assert "Canary" not in str(caught.value)


@pytest.mark.parametrize("present", [[], ["PixelData", "FloatPixelData"]])
def test_there_must_be_exactly_one_image(read: Read, present: list[str]) -> None:
    dataset = dcmread(io.BytesIO(dicom(VALUES)))
    if not present:
        del dataset.PixelData
    else:
        dataset.FloatPixelData = bytes(4 * VALUES.size)
    file = io.BytesIO()
    dataset.save_as(file)
    with pytest.raises(UnreadableImage, match="no pixel data"):
        read(file.getvalue())


def test_floating_point_pixels_are_read_unless_they_are_no_numbers(read: Read) -> None:
    def floating(values: np.ndarray) -> bytes:
        dataset = dcmread(io.BytesIO(dicom(VALUES)))
        del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
        dataset.BitsAllocated = 32
        dataset.FloatPixelData = values.astype("<f4").tobytes()
        file = io.BytesIO()
        dataset.save_as(file)
        return file.getvalue()

    assert read(floating(VALUES)).image.tobytes() == read(dicom(VALUES)).image.tobytes()
    values = VALUES.astype(np.float32)
    values[3, 3] = np.nan
    assert read(floating(values)).rendering.steps == ("not_a_number", "stretch")
    for bad in (values * np.nan, np.where(np.isnan(values), np.inf, values)):
        with pytest.raises(UnreadableImage, match="not numbers"):
            read(floating(bad))


def test_sequences_within_sequences_end_in_a_refusal(read: Read) -> None:
    inner = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    nested = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff" + inner
    data = dicom(VALUES)
    at = data.index(b"\x08\x00\x16\x00UI")
    with pytest.raises(UnreadableImage):
        read(data[:at] + nested * 5000)


def test_no_tag_reaches_the_image_or_what_is_told_of_it(read: Read) -> None:
    item = Dataset()
    item.PatientName = CANARY
    plain = read(dicom(VALUES))
    named = read(
        dicom(
            VALUES,
            PatientName=CANARY,
            PatientID=CANARY,
            StudyDescription=CANARY,
            ImageComments=CANARY,
            WindowCenterWidthExplanation=CANARY,
            ReferencedPatientSequence=Sequence([item]),
        )
    )
    assert named.image.tobytes() == plain.image.tobytes()
    assert "Canary" not in named.rendering.model_dump_json()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_sequences_of_very_many_items_are_refused_before_they_are_read(
    read: Read, monkeypatch: pytest.MonkeyPatch, syntax: str
) -> None:
    """pydicom needs many seconds for a file of a few megabytes of empty items."""
    monkeypatch.setattr("medmoe.server.imaging.formats.dicom.meta_header._MOST_ITEMS", 200)

    def holding(count: int) -> bytes:
        return dicom(VALUES, syntax=syntax, PerFrameFunctionalGroupsSequence=[Dataset() for _ in range(count)])

    assert read(holding(200)).width == 32
    with pytest.raises(ImageTooLarge, match="over 200 items"):
        read(holding(201))
