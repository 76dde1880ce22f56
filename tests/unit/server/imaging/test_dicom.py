"""What a DICOM file's attributes and the request's fields make of its stored values."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from medmoe.server.errors import InvalidField
from medmoe.server.imaging.formats.dicom.lut.voi_lut import apply_window
from medmoe.server.schemas.images import AppliedWindow
from medmoe.server.schemas.voi_window import PRESETS, Window
from tests.support.images.dicom_files import dicom, gradient, look_up_table
from tests.unit.server.conftest import Read

SIDE = 32
"""The tiny model's: images of this size are not resized."""
HU = gradient((SIDE, SIDE), low=-1100)


def shown(read: Read, data: bytes, **fields: Any) -> np.ndarray:
    return np.asarray(read(data, **fields).image)


def grey(read: Read, data: bytes, **fields: Any) -> np.ndarray:
    pixels = shown(read, data, **fields)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.rint(np.clip((values - (centre - width / 2)) / width, 0, 1) * 255).astype(np.uint8)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Up to one grey level: the two round in different places."""
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (-600, 1500), (0, 2), (300.5, 3.5)])
def test_windows_are_those_of_the_standard_as_pydicom_reads_it(function: Any, centre: float, width: float) -> None:
    dataset = dcmread(io.BytesIO(dicom(HU, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)))
    expected = (apply_windowing(HU, dataset) + 2**15) / (2**16 - 1) * 255
    same(apply_window(HU, Window(centre=centre, width=width, function=function)), np.rint(expected))


def test_a_linear_window_of_width_one_is_a_threshold() -> None:
    found = apply_window(np.array([39, 40], np.int16), Window(centre=40, width=1, function="LINEAR"))
    assert found.tolist() == [0, 255]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_the_files_own_window_is_applied_to_rescaled_values(read: Read, syntax: str) -> None:
    stored = (HU + 1024).astype(np.uint16)
    frames = None
    if syntax == RLELossless:
        dataset = dcmread(io.BytesIO(dicom(stored)))
        dataset.compress(RLELossless)
        frames = list(generate_frames(dataset.PixelData, number_of_frames=1))
    data = dicom(
        stored, syntax=syntax, frames=frames, RescaleSlope=2, RescaleIntercept=-2048, WindowCenter=[40, 500],
        WindowWidth=[400, 100],
    )  # fmt: skip
    same(grey(read, data), linear(stored * 2.0 - 2048, 39.5, 399))
    rendering = read(data).rendering
    assert rendering.steps == ("rescale", "window")
    assert rendering.windows == (AppliedWindow(source="file", centre=40, width=400, function="LINEAR"),)


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_hounsfield_windows(read: Read, name: str) -> None:
    data = dicom(HU, RescaleSlope=1, RescaleIntercept=0, WindowCenter=0, WindowWidth=9)
    window = PRESETS[name]
    same(grey(read, data, window=name), linear(HU, window.centre, window.width))
    (applied,) = read(data, window=name).rendering.windows
    assert (applied.source, applied.centre, applied.width) == ("preset", window.centre, window.width)


def test_presets_are_for_ct_only_and_numbers_for_all_grey_images(read: Read) -> None:
    data = dicom(HU, Modality="MR")
    with pytest.raises(InvalidField, match="Hounsfield") as caught:
        read(data, window="lung")
    assert caught.value.param == "window"
    same(grey(read, data, window="-100.5/700"), linear(HU, -100.5, 700))


def test_three_windows_become_red_green_and_blue(read: Read) -> None:
    data = dicom(HU, RescaleIntercept=0, RescaleSlope=1)
    pixels = shown(read, data, window="lung, mediastinum,40/80")
    for channel, window in enumerate((PRESETS["lung"], PRESETS["mediastinum"], PRESETS["brain"])):
        same(pixels[..., channel], linear(HU, window.centre, window.width))
    assert [window.source for window in read(data, window="lung, mediastinum,40/80").rendering.windows] == [
        "preset", "preset", "request"
    ]  # fmt: skip


@pytest.mark.parametrize("window", [None, "full", "file"])
def test_without_any_window_values_are_stretched_as_those_of_a_png(read: Read, window: str | None) -> None:
    values = (HU + 1100).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, format="PNG")
    np.testing.assert_array_equal(shown(read, dicom(values), window=window), shown(read, file.getvalue()))
    (applied,) = read(dicom(values), window=window).rendering.windows
    assert (applied.source, applied.width) == ("full", float(np.ptp(values)))
    assert (applied.centre, applied.function) == ((values.min() + values.max()) / 2, "LINEAR_EXACT")


def test_eight_bits_without_a_window_are_left_alone_as_those_of_a_png(read: Read) -> None:
    values = np.full((SIDE, SIDE), 100, np.uint8)
    values[0] = 50
    np.testing.assert_array_equal(grey(read, dicom(values)), values)
    assert read(dicom(values)).rendering.windows == ()
    assert set(np.unique(grey(read, dicom(values), window="full"))) == {0, 255}


@pytest.mark.parametrize("fields", [{}, {"window": "full"}, {"window": "40/400"}, {"window": "lung,full,bone"}])
@pytest.mark.parametrize("attributes", [{}, {"WindowCenter": 40, "WindowWidth": 400}])
def test_monochrome1_is_the_negative(read: Read, fields: dict[str, Any], attributes: dict[str, Any]) -> None:
    attributes = attributes | {"RescaleIntercept": 0, "RescaleSlope": 1}
    positive = shown(read, dicom(HU, **attributes), **fields)
    data = dicom(HU, PhotometricInterpretation="MONOCHROME1", **attributes)
    same(shown(read, data, **fields), 255 - positive)
    assert read(data, **fields).rendering.steps.count("invert") == 1


def test_modality_and_voi_look_up_tables(read: Read) -> None:
    values = np.tile(np.arange(8, dtype=np.uint16), (SIDE, SIDE // 8))
    modality = look_up_table([0, 1000, 2000, 3000, 4000, 5000, 6000, 7000])
    data = dicom(values, ModalityLUTSequence=Sequence([modality]))
    same(grey(read, data, window="3500/7000"), linear(values * 1000.0, 3500, 7000))
    assert read(data, window="3500/7000").rendering.steps == ("modality_lut", "window")
    voi = look_up_table([0, 10, 20, 30, 255, 255], first=2, bits=8)
    data = dicom(values, VOILUTSequence=Sequence([voi]), WindowCenter=1, WindowWidth=2)
    assert grey(read, data)[0, :8].tolist() == [0, 0, 0, 10, 20, 30, 255, 255]
    assert read(data).rendering.steps == ("voi_lut",)
    same(grey(read, data, window="4/8"), linear(values, 4, 8))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count(read: Read, photometric: str) -> None:
    values = HU.copy()
    values[:4] = -2000
    data = dicom(values, PixelPaddingValue=-2000, PhotometricInterpretation=photometric)
    pixels = grey(read, data)
    assert pixels[:4].max() == 0
    expected = linear(HU[4:], (HU[4:].min() + HU.max()) / 2, np.ptp(HU[4:]))
    same(pixels[4:], 255 - expected if photometric == "MONOCHROME1" else expected)


def test_unused_high_bits_are_not_values(read: Read) -> None:
    values = (HU - HU.min()).astype(np.uint16) & 0x0FFF
    overlaid = values | 0x8000
    stored = {"BitsStored": 12, "HighBit": 11}
    np.testing.assert_array_equal(grey(read, dicom(overlaid, **stored)), grey(read, dicom(values, **stored)))


def test_palettes_deep_colours_and_planes(read: Read) -> None:
    ramp = np.arange(256, dtype="<u2") << 8
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in {"Red": ramp, "Green": ramp[::-1], "Blue": ramp // 2}.items():
        palette |= {
            f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16],
            f"{name}PaletteColorLookupTableData": np.ascontiguousarray(table).tobytes(),
        }  # type: ignore[dict-item]
    index = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
    expected = np.stack([index, 255 - index, (ramp // 2 >> 8)[index]], axis=-1)
    np.testing.assert_array_equal(shown(read, dicom(index, **palette)), expected)
    assert read(dicom(index, **palette)).rendering.steps == ("palette", "high_byte")

    deep = expected.astype(np.uint16) * 257
    np.testing.assert_array_equal(shown(read, dicom(deep, colours=3)), expected)
    planes = np.ascontiguousarray(expected.astype(np.uint8).transpose(2, 0, 1)).reshape(SIDE, SIDE, 3)
    np.testing.assert_array_equal(shown(read, dicom(planes, colours=3, PlanarConfiguration=1)), expected)
    as_ybr = np.asarray(Image.fromarray(expected.astype(np.uint8)).convert("YCbCr"))
    found = shown(read, dicom(as_ybr, colours=3, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(found.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("window", ["40/400", "full", "file", "lung"])
def test_colours_have_no_window(read: Read, window: str) -> None:
    with pytest.raises(InvalidField, match="colours") as caught:
        read(dicom(np.zeros((SIDE, SIDE, 3), np.uint8), colours=3), window=window)
    assert caught.value.param == "window"


def test_frames_are_chosen_by_number(read: Read) -> None:
    values = np.stack([np.full((SIDE, SIDE), shade, np.uint8) for shade in (10, 120, 230)])
    data = dicom(values, NumberOfFrames=3)
    assert [int(grey(read, data, frame=number, allow_uniform=True)[0, 0]) for number in range(3)] == [10, 120, 230]
    assert int(grey(read, data, allow_uniform=True)[0, 0]) == 10
    assert (
        read(data, frame=2, allow_uniform=True).rendering.frame,
        read(data, frame=2, allow_uniform=True).rendering.frames,
    ) == (2, 3)
    with pytest.raises(InvalidField, match="3") as caught:
        read(data, frame=3)
    assert caught.value.param == "frame"


def test_enhanced_files_keep_windows_and_rescaling_in_their_frames_groups(read: Read) -> None:
    def group(name: str, **attributes: Any) -> Dataset:
        item, outer = Dataset(), Dataset()
        for keyword, value in attributes.items():
            setattr(item, keyword, value)
        setattr(outer, name, Sequence([item]))
        return outer

    data = dicom(
        np.stack([HU, HU]),
        NumberOfFrames=2,
        SharedFunctionalGroupsSequence=Sequence(
            [group("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-100)]
        ),
        PerFrameFunctionalGroupsSequence=Sequence(
            [
                group("FrameVOILUTSequence", WindowCenter=0, WindowWidth=100),
                group("FrameVOILUTSequence", WindowCenter=500, WindowWidth=900),
            ]
        ),
    )
    for frame, (centre, width) in enumerate([(0, 100), (500, 900)]):
        same(grey(read, data, frame=frame), linear(HU - 100.0, centre - 0.5, width - 1))


def test_rescaling_is_pydicoms(read: Read) -> None:
    dataset = dcmread(io.BytesIO(dicom(HU, RescaleSlope="1.5", RescaleIntercept="-7")))
    values = apply_modality_lut(HU, dataset)
    same(
        grey(read, dicom(HU, RescaleSlope="1.5", RescaleIntercept="-7"), window="full"),
        linear(values, (values.min() + values.max()) / 2, np.ptp(values)),
    )


@pytest.mark.parametrize("attributes", [{"WindowCenter": 40, "WindowWidth": 0}, {"WindowCenter": 40}])
def test_a_window_of_the_file_that_cannot_be_used_is_not(read: Read, attributes: dict[str, Any]) -> None:
    assert read(dicom(HU, **attributes)).rendering.windows[0].source == "full"
