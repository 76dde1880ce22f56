"""Everything that may be called an image, and that nothing of it is sent but the image."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL import PngImagePlugin
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from medmoe.client.call import ask
from medmoe.client.commands.images import prepared, read_image
from medmoe.client.errors import InvalidInput
from medmoe.client.images.dicom import pixels_only
from medmoe.client.images.image import Image
from medmoe.model.colour_profile import SRGB_WHITE, plain_profile
from medmoe.model.image_formats.raster import read_raster
from medmoe.server.errors import InvalidField
from medmoe.server.imaging.decoder_config import ImageLimits
from medmoe.server.imaging.formats.dicom.file import DicomFile
from medmoe.server.imaging.formats.dicom.rendering import show
from medmoe.server.imaging.formats.reader import ImageReader
from medmoe.server.schemas.images import ImageFields
from medmoe.server.schemas.voi_window import parse
from tests.support.images.dicom_files import dicom, gradient, look_up_table
from tests.support.images.hostile_images import encoded
from tests.support.images.odd_files import matrix_profile
from tests.unit.server.conftest import decoder_config

SECRET = "DOE7Q"


def tagged(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(2).integers(0, 256, (16, 20, 4), dtype=np.uint8)
    return encoded(PIL.Image.fromarray(pixels, "RGBA").convert(mode), kind, **options)


def exif(orientation: int) -> PIL.Image.Exif:
    found = PIL.Image.Exif()
    found[0x0112], found[0x013B] = orientation, SECRET
    found[0x011A], found[0x011B], found[0x0128] = 72.0, 144.0, 2
    return found


def png_text() -> PngImagePlugin.PngInfo:
    found = PngImagePlugin.PngInfo()
    found.add_text("Patient", SECRET)
    return found


TAGGED: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: tagged("JPEG", exif=exif(6), comment=SECRET.encode()),
    "grey JPEG": lambda: tagged("JPEG", "L", exif=exif(1), xmp=SECRET.encode()),
    "two images": lambda: tagged("MPO", exif=exif(1), save_all=True, append_images=[PIL.Image.new("RGB", (20, 16))]),
    "JPEG with another image behind it": lambda: tagged("JPEG") + tagged("JPEG", comment=SECRET.encode()),
    "PNG": lambda: tagged("PNG", "RGBA", exif=exif(8), pnginfo=png_text()),
    "PNG with a profile": lambda: tagged("PNG", icc_profile=matrix_profile(gamma=1.0), pnginfo=png_text()),
    "WebP": lambda: tagged("WEBP", exif=exif(3), lossless=True, xmp=SECRET.encode()),
    "TIFF": lambda: tagged("TIFF", "CMYK", tiffinfo={270: SECRET, 274: 6}),
    "BigTIFF": lambda: tagged("TIFF", "L", tiffinfo={305: SECRET}, big_tiff=True),
    "BMP": lambda: tagged("BMP") + SECRET.encode(),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / f"{SECRET}.png"
    PIL.Image.linear_gradient("L").resize((20, 16)).save(path)
    return path


def test_a_file_its_content_and_its_base64_are_the_same_image(file: Path) -> None:
    data = file.read_bytes()
    encoded = base64.b64encode(data).decode()
    for source in (
        file,
        str(file),
        data,
        bytearray(data),
        memoryview(data),
        io.BytesIO(data),
        f"data:image/png;base64,{encoded}",
        Image(data),
    ):
        assert Image.of(source).data == data  # type: ignore[arg-type]
    with file.open("rb") as opened:
        assert Image.of(opened).data == data
    assert Image.from_base64(encoded).data == data


def test_neither_the_name_nor_a_key_nor_the_image_is_shown(file: Path) -> None:
    call = ask(file, f"Is this {SECRET}?", {})
    assert SECRET not in repr(call)
    assert repr(Image(b"pixels")) == "Image()"


@pytest.mark.parametrize("text", ["data:image/png;base64,%%%", "data:image/png;base64,QQ=", "data:text/plain,hello"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Image.of(text)


@pytest.mark.parametrize("name", ["none.png", ".", "https://example.org/a.png", "a\0b"])
def test_what_cannot_be_read_is_refused_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput):
        Image.of(name)


@pytest.mark.parametrize("source", [None, 3, io.StringIO("text"), object()])
def test_what_is_no_image_at_all_is_a_programmers_mistake(source: Any) -> None:
    with pytest.raises(TypeError):
        Image.of(source)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((5, 7), "uint8"), ((5, 7), "uint16"), ((5, 7), ">u2"), ((5, 7, 3), "uint8"), ((5, 7, 4), "uint8")],
)
def test_an_array_keeps_its_values(shape: tuple[int, ...], kind: str) -> None:
    pixels = (np.arange(np.prod(shape)).reshape(shape) * 7).astype(kind)
    # Also one that does not lie in one piece.
    for array in (pixels, np.repeat(pixels, 2, axis=1)[:, ::2]):
        with PIL.Image.open(io.BytesIO(Image.of(array).data)) as image:
            assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.float32), np.zeros((4, 4), np.int16), np.zeros((4, 4), bool), np.zeros((3, 5, 5), np.uint8),
     np.zeros((4, 4, 3), np.uint16), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8)],
)  # fmt: skip
def test_an_array_whose_black_and_white_are_not_known_is_refused(array: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="no image"):
        Image.of(array)


def test_a_pillow_image_is_sent_upright_and_without_its_notes() -> None:
    image = PIL.Image.linear_gradient("L").resize((20, 10)).convert("RGB")
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010E] = 6, SECRET
    file = io.BytesIO()
    image.save(file, format="JPEG", exif=exif, comment=SECRET)
    with PIL.Image.open(file) as turned:
        sent = Image.of(turned).data
        expected = np.asarray(turned.transpose(PIL.Image.Transpose.ROTATE_270))
        assert turned.getexif()[0x0112] == 6
    assert SECRET.encode() not in sent
    with PIL.Image.open(io.BytesIO(sent)) as image:
        assert image.size == (10, 20)
        assert np.array_equal(np.asarray(image), expected)


def test_neither_text_nor_profile_of_a_png_goes_along_but_its_transparency_does() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Patient", SECRET)
    palette = PIL.Image.linear_gradient("L").resize((20, 10)).convert("P")
    file = io.BytesIO()
    palette.save(file, format="PNG", pnginfo=notes, transparency=3, icc_profile=SECRET.encode())
    with PIL.Image.open(file) as image:
        sent = Image.of(image).data
    assert SECRET.encode() not in sent
    with PIL.Image.open(io.BytesIO(sent)) as image:
        assert image.info == {"transparency": 3}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_colours_of_a_pillow_image_are_sent_as_the_service_sees_those_of_a_file(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    profile = matrix_profile(gamma=1.8, swapped=True)
    if mode == "L":
        profile = plain_profile(1.8, white=SRGB_WHITE, primaries=None) or b""
    file = io.BytesIO()
    PIL.Image.fromarray(noise, "RGBA").convert(mode).save(file, format="PNG", icc_profile=profile)
    limits = decoder_config().limits
    expected = read_raster(file.getvalue(), "PNG", limits=limits)
    assert "icc_profile" in expected.steps
    with PIL.Image.open(io.BytesIO(file.getvalue())) as image:
        sent = read_raster(Image.of(image).data, "PNG", limits=limits)
    assert np.abs(np.asarray(sent.image).astype(int) - np.asarray(expected.image)).max() <= 1


@pytest.mark.parametrize("mode", ["CMYK", "F", "YCbCr"])
def test_a_mode_that_png_has_not_is_the_callers_to_convert(mode: str) -> None:
    with pytest.raises(InvalidInput, match=mode):
        Image.of(PIL.Image.new(mode, (4, 4)))


def test_whole_numbers_keep_their_values_or_are_refused() -> None:
    values = np.array([[0, 65_535], [3_000, 1]], np.int32)
    with PIL.Image.open(io.BytesIO(Image.of(PIL.Image.fromarray(values)).data)) as image:
        assert np.array_equal(np.asarray(image), values)
    for wrong in (-1, 65_536):
        with pytest.raises(InvalidInput, match="values outside 0 to 65535"):
            Image.of(PIL.Image.fromarray(np.full((4, 4), wrong, np.int32)))


def test_a_pillow_image_that_is_cut_short_is_refused(file: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    data = Image.of(noise).data
    with PIL.Image.open(io.BytesIO(data[: len(data) // 2])) as image, pytest.raises(InvalidInput):
        Image.of(image)


def named(**more: Any) -> dict[str, Any]:
    """Attributes that name somebody, wherever DICOM lets them stand."""
    item = Dataset()
    item.PatientName = SECRET
    item.WindowCenterWidthExplanation = SECRET
    table = look_up_table([0, 100, 200], first=0)
    table.LUTExplanation = SECRET
    table.PatientID = SECRET
    return {
        "PatientName": f"{SECRET}^JANE",
        "PatientID": SECRET,
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.77",
        "InstitutionName": SECRET,
        "ImageComments": SECRET,
        "ReferencedStudySequence": [item],
        "WindowCenterWidthExplanation": SECRET,
        **more,
    }


def shown(data: bytes, *, window: str | None = None, frame: int | None = None) -> tuple[bytes, object]:
    limits = ImageLimits(max_pixels=10**7, min_side=1, max_aspect_ratio=100, max_frames=100)
    file = DicomFile(data, frame=frame, limits=limits, burned_in="accept")
    image, rendering, _ = show(file, parse(window) if window else ())
    return image.tobytes(), (rendering.steps, rendering.windows, image.info.get("icc_profile"))


SYNTAXES = ["1.2.840.10008.1.2.1", ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_dicom_file_without_its_tags_shows_the_same_image(syntax: str, tmp_path: Path) -> None:
    look = named(RescaleSlope=2, RescaleIntercept=-24, WindowCenter=40, WindowWidth=400, PixelPaddingValue=-1024)
    data = dicom(gradient((40, 48)), syntax=syntax, **look)
    private = dcmread(io.BytesIO(data))
    private.private_block(0x0029, "MAKER", create=True).add_new(1, "LO", SECRET)
    private.preamble = SECRET.encode().ljust(128, b"\0")
    file = io.BytesIO()
    private.save_as(file)
    (tmp_path / "file").write_bytes(file.getvalue())
    bare = pixels_only(tmp_path / "file").data
    assert (SECRET.encode() in file.getvalue()[132:]) == (syntax != DeflatedExplicitVRLittleEndian)
    assert SECRET.encode() not in bare
    assert b"498.77" not in bare
    left = {element.keyword for element in dcmread(io.BytesIO(bare))}
    assert not left & {"PatientName", "PatientID", "StudyInstanceUID", "ReferencedStudySequence", "ImageComments"}
    for window in (None, "full", "40/400", "lung"):
        assert shown(bare, window=window) == shown(data, window=window)
    assert pixels_only(bare).data == bare


def test_look_up_tables_frames_and_compressed_pixels_stay() -> None:
    table = look_up_table([0, 100, 200], first=-1024)
    table.LUTExplanation = SECRET
    lut = dicom(gradient((20, 24)), **named(VOILUTSequence=[table]))
    group, item = Dataset(), Dataset()
    item.WindowCenter, item.WindowWidth, item.WindowCenterWidthExplanation = 10, 50, SECRET
    group.FrameVOILUTSequence = [item]
    group.FrameContentSequence = [look_up_table([1])]
    group.FrameContentSequence[0].FrameComments = SECRET
    values = np.stack([np.full((16, 16), shade, np.uint8) for shade in (10, 30)])
    frames = dicom(values, **named(NumberOfFrames=2, PerFrameFunctionalGroupsSequence=[group, group]))
    squeezed = dcmread(io.BytesIO(dicom(gradient((16, 16), dtype=np.uint16, low=0), **named())))
    squeezed.compress(RLELossless, encoding_plugin="pylibjpeg")
    file = io.BytesIO()
    squeezed.save_as(file)
    for data, frame in ((lut, None), (frames, 1), (file.getvalue(), None)):
        assert SECRET.encode() in data
        bare = pixels_only(data).data
        assert SECRET.encode() not in bare
        assert shown(bare, frame=frame) == shown(data, frame=frame)
    assert dcmread(io.BytesIO(pixels_only(file.getvalue()).data)).file_meta.TransferSyntaxUID == RLELossless


def test_what_colours_and_shape_depend_on_in_other_groups_stays() -> None:
    palette: dict[str, Any] = {"PixelPresentation": "COLOR", "ImagerPixelSpacing": [2, 1]}
    palette |= {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "TotalPixelMatrixRows": 400}
    shutter, groups, mask = Dataset(), Dataset(), Dataset()
    shutter.ShutterShape, shutter.ImageComments = "CIRCULAR", SECRET
    groups.FrameDisplayShutterSequence = [shutter]
    mask.MaskOperation, mask.MaskOperationExplanation = "AVG_SUB", SECRET
    palette |= {"SharedFunctionalGroupsSequence": [groups], "MaskSubtractionSequence": [mask]}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 400, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = np.arange(256, dtype="<u2").tobytes()
    data = dicom(gradient((20, 24)), **named(**palette))
    bare = pixels_only(data).data
    assert SECRET.encode() not in bare
    assert shown(bare) == shown(data)
    assert {"palette", "shutter_ignored", "subtraction_ignored", "tile", "localizer"} <= set(shown(bare)[1][0])
    assert dcmread(io.BytesIO(bare)).ImagerPixelSpacing == [2, 1]


def optical_path(identifier: str, profile: bytes | None = None) -> Dataset:
    path = Dataset()
    path.OpticalPathIdentifier, path.OpticalPathDescription = identifier, SECRET
    if profile is not None:
        path.ICCProfile = profile
    return path


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_the_profile_of_a_slide_s_optical_path_stays_without_its_name(frame: int) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    first, second, third = f"{SECRET}1", f"{SECRET}2", f"{SECRET}3"
    frames = []
    for identifier in (second, first, third):
        frames.append(Dataset())
        frames[-1].OpticalPathIdentificationSequence = [optical_path(identifier)]
    slide = named(Modality="SM", NumberOfFrames=3, PerFrameFunctionalGroupsSequence=frames)
    linear, other = matrix_profile(gamma=1.0), matrix_profile(gamma=3.0)
    slide["OpticalPathSequence"] = [optical_path(first, linear), optical_path(second, other), optical_path(third)]
    data = dicom(colours, colours=3, **slide)
    bare = pixels_only(data).data
    assert SECRET.encode() not in bare
    assert shown(bare, frame=frame) == shown(data, frame=frame)
    assert pixels_only(bare).data == bare


@pytest.mark.parametrize("unit", ["HU", "US", "Z_EFF", SECRET, ""])
def test_the_unit_of_a_ct_without_its_tags_is_what_it_was(unit: str) -> None:
    attributes = named(Modality="CT", RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    data = dicom(gradient((40, 48)), RescaleType=unit, **attributes)
    bare = pixels_only(data).data
    assert SECRET.encode() not in bare
    assert shown(bare) == shown(data)
    if unit in ("HU", ""):
        assert shown(bare, window="lung") == shown(data, window="lung")
    else:
        for either in (data, bare):
            with pytest.raises(InvalidField, match="Hounsfield"):
                shown(either, window="lung")


def test_a_dataset_of_the_callers_is_left_as_it_was() -> None:
    dataset = dcmread(io.BytesIO(dicom(gradient((20, 24)), **named(VOILUTSequence=[look_up_table([0, 1])]))))
    before = str(dataset)
    assert SECRET.encode() not in pixels_only(dataset).data
    assert str(dataset) == before


def test_what_marks_burned_in_text_stays_so_that_the_service_can_refuse_it() -> None:
    bare = pixels_only(dicom(gradient((20, 24)), BurnedInAnnotation="YES"))
    assert dcmread(io.BytesIO(bare.data)).BurnedInAnnotation == "YES"


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", bytes(128) + b"DICM", dicom(gradient())[:200]])
def test_what_is_no_dicom_image_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        pixels_only(data)


@pytest.mark.parametrize("start", [132, 200])
def test_what_may_be_dicom_without_its_preamble_is_not_sent_whole(start: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        prepared(Image(dicom(gradient(), PatientName=SECRET)[start:]), pixels_only=True)
    assert SECRET not in str(refused.value)


def test_an_image_with_a_dicom_file_behind_it_loses_its_tags_too() -> None:
    both = b"II*\x00" + dicom(gradient(), PatientName=SECRET)[4:]
    assert SECRET.encode() not in prepared(Image(both), pixels_only=True).data


@pytest.mark.parametrize("kind", list(TAGGED))
def test_other_files_than_dicom_lose_their_metadata_and_no_pixel(kind: str) -> None:
    data = TAGGED[kind]()
    assert SECRET.encode() in data.replace(b"\0", b"")
    bare = prepared(Image(data), pixels_only=True).data
    assert SECRET.encode() not in bare.replace(b"\0", b"")
    with PIL.Image.open(io.BytesIO(bare)) as image:
        assert not image.info
    assert prepared(Image(data), pixels_only=False).data == data
    assert prepared(Image(bare), pixels_only=True).data == bare
    reader = ImageReader(decoder_config())
    seen, sent = (reader.read(file, ImageFields(allow_uniform=True)) for file in (data, bare))
    assert (sent.pixels, sent.size) == (seen.pixels, seen.size)


def test_a_damaged_file_is_named_and_not_sent(file: Path) -> None:
    with pytest.raises(InvalidInput):
        prepared(Image(file.read_bytes()[:60]), pixels_only=True)


@pytest.mark.parametrize("given", [None, io.TextIOWrapper(io.BytesIO())], ids=["closed", "empty"])
def test_standard_input_without_an_image_is_named(given: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", given)
    with pytest.raises(InvalidInput, match="standard input is empty"):
        read_image("-", pixels_only=False)
