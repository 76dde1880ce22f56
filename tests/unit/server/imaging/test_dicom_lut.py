"""Look-up tables and windows of DICOM files in each storage that occurs."""

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from medmoe.server.errors import InvalidField, UnreadableImage
from tests.support.images.dicom_files import dicom, look_up_table
from tests.unit.server.conftest import Read

SIDE = 32
RAMP = np.tile(np.arange(SIDE, dtype=np.uint16) * 8, (SIDE, 1))
EXPECTED = RAMP[0].astype(int)


def row(read: Read, data: bytes, **fields: Any) -> np.ndarray:
    return np.asarray(read(data, **fields).image).astype(int)[SIDE // 2, :, 0]


def table(data: bytes | list[int], *, descriptor: list[int], vr: str = "OW") -> Dataset:
    item = Dataset()
    item.LUTDescriptor = descriptor
    item.LUTData = data
    item["LUTData"].VR = vr
    return item


@pytest.mark.parametrize(
    "item",
    [
        table(bytes(range(256)), descriptor=[256, 0, 8]),
        table(np.arange(256, dtype="<u2").tobytes(), descriptor=[256, 0, 8]),
        table((np.arange(256, dtype="<u2") << 8).tobytes(), descriptor=[256, 0, 8]),
        table((np.arange(256, dtype="<u2") * 16).tobytes(), descriptor=[256, 0, 16]),
        table(list(range(0, 65536, 257)), descriptor=[256, 0, 16], vr="US"),
        table([low | low + 1 << 8 for low in range(0, 256, 2)], descriptor=[256, 0, 8], vr="US"),
        table(np.arange(250, dtype="<u2").tobytes(), descriptor=[256, 0, 8]),
    ],
    ids=["bytes", "low byte", "high byte", "12 bits called 16", "list", "list of two in a word", "short"],
)
def test_a_voi_table_is_read_in_every_storage(read: Read, item: Dataset) -> None:
    found = row(read, dicom(RAMP, VOILUTSequence=Sequence([item])))
    assert np.abs(found - np.minimum(EXPECTED, 249)).max() <= 2


@pytest.mark.parametrize("number", [b"100.5", b"90.25", b"1.75", b"7.25"])
def test_a_decimal_comma_is_a_point_and_told(read: Read, number: bytes) -> None:
    described = {"WindowCenter": "100.5", "WindowWidth": "90.25", "RescaleSlope": "1.75", "RescaleIntercept": "7.25"}
    point = dicom(RAMP, **described)
    comma = point.replace(number, number.replace(b".", b","))
    assert row(read, comma).tolist() == row(read, point).tolist()
    assert "decimal_comma" in read(comma).rendering.steps


def test_a_table_that_leaves_one_bit_empty_is_as_dark_as_it_says(read: Read) -> None:
    data = dicom(RAMP, VOILUTSequence=Sequence([look_up_table([level * 128 for level in range(256)])]))
    assert np.abs(row(read, data) - EXPECTED / 2).max() <= 1


@pytest.mark.parametrize("first", [-1024, 64512])
def test_a_first_value_is_signed_where_values_can_be_negative(read: Read, first: int) -> None:
    item = look_up_table(list(range(256)), bits=8)
    item.LUTDescriptor = [256, first, 8]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    data = dicom(RAMP, VOILUTSequence=Sequence([item]), RescaleSlope=1, RescaleIntercept=-1024)
    assert np.abs(row(read, data) - EXPECTED).max() <= 1


def test_a_large_first_value_is_not_negative_where_no_value_can_be(read: Read) -> None:
    item = look_up_table(list(range(256)), first=40_000, bits=8)
    assert np.abs(row(read, dicom(RAMP + 40_000, VOILUTSequence=Sequence([item]))) - EXPECTED).max() <= 1


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize(
    "item", [Dataset(), table(bytes(256), descriptor=[256, 0])], ids=["empty", "half of a descriptor"]
)
def test_an_item_that_is_no_table_is_named_and_not_used(read: Read, name: str, item: Dataset) -> None:
    data = dicom(RAMP, WindowCenter=128, WindowWidth=256, **{name: Sequence([item])})
    assert np.abs(row(read, data) - EXPECTED).max() <= 1
    assert any(step.endswith("lut_ignored") for step in read(data).rendering.steps)


@pytest.mark.parametrize(
    ("attributes", "step"),
    [
        ({"VOILUTFunction": "CURVED"}, "voi_function_ignored"),
        ({"PixelAspectRatio": ["2", "1"]}, "pixel_aspect"),
        ({"ShutterShape": "CIRCULAR"}, "shutter_ignored"),
    ],
    ids=str,
)
def test_what_is_missing_or_unknown_is_repaired_and_told(read: Read, attributes: dict[str, Any], step: str) -> None:
    rendering = read(dicom(RAMP, WindowCenter=128, WindowWidth=256, **attributes)).rendering
    assert step in rendering.steps
    assert rendering.windows[0].centre == 128


@pytest.mark.parametrize(
    ("attributes", "step"),
    [
        ({"RescaleSlope": 1}, "rescale_completed"),
        ({"RescaleIntercept": 0}, "rescale_completed"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescale_ignored"),
    ],
    ids=str,
)
def test_half_a_rescaling_is_completed_and_one_that_leaves_nothing_ignored(
    read: Read, attributes: dict[str, Any], step: str
) -> None:
    data = dicom(RAMP, WindowCenter=128, WindowWidth=256, **attributes)
    assert step in read(data).rendering.steps
    assert np.abs(row(read, data) - EXPECTED).max() <= 1


@pytest.mark.parametrize(
    "attributes",
    [{}, {"RescaleSlope": 0, "RescaleIntercept": 0}, {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}],
    ids=["no rescaling", "slope 0", "unspecified units"],
)
def test_named_windows_are_for_hounsfield_units_alone(read: Read, attributes: dict[str, Any]) -> None:
    with pytest.raises(InvalidField, match="Hounsfield"):
        read(dicom(RAMP, **attributes), window="lung")


@pytest.mark.parametrize("inverted", [True, False])
@pytest.mark.parametrize("attributes", [{}, {"WindowCenter": 3000000124, "WindowWidth": 249}], ids=["full", "window"])
def test_large_values_that_differ_little_keep_their_differences(
    read: Read, attributes: dict[str, Any], inverted: bool
) -> None:
    values = RAMP.astype(np.uint32) + 3_000_000_000
    colour = "MONOCHROME1" if inverted else "MONOCHROME2"
    found = row(read, dicom(values, PhotometricInterpretation=colour, **attributes))
    shades = EXPECTED * (255 / 248)
    assert np.abs(found - (255 - shades if inverted else shades)).max() <= 1


@pytest.mark.parametrize("slope", [1e-6, 1e-10])
@pytest.mark.parametrize("intercept", [0, 100])
@pytest.mark.parametrize("windowed", [False, True], ids=["full", "window"])
def test_small_slopes_keep_their_differences(read: Read, slope: float, intercept: float, windowed: bool) -> None:
    attributes: dict[str, Any] = {"RescaleSlope": slope, "RescaleIntercept": intercept, "Modality": "MR"}
    if windowed:
        attributes |= {"WindowCenter": f"{intercept + 124 * slope:.14g}", "WindowWidth": f"{248 * slope:.8g}"}
    found = row(read, dicom(RAMP, **attributes))
    assert np.abs(found - EXPECTED * (255 / 248)).max() <= 1


def test_windows_and_slopes_of_large_values_are_used(read: Read) -> None:
    scaled = {"RescaleSlope": "2e10", "RescaleIntercept": 0, "WindowCenter": "2.48e12", "WindowWidth": "4.98e12"}
    image = read(dicom(RAMP, Modality="PT", VOILUTFunction="LINEAR_EXACT", **scaled))
    assert image.rendering.steps == ("rescale", "window")
    expected = np.clip((EXPECTED * 2e10 - 2.48e12) / 4.98e12 + 0.5, 0, 1) * 255
    assert np.abs(np.asarray(image.image).astype(int)[SIDE // 2, :, 0] - expected).max() <= 1


def supplemental(first: int, *, bits: int = 16) -> dict[str, Any]:
    """Return the attributes of a palette from blue to red for 32 values from `first` on."""
    ramp = np.linspace(0, 2**bits - 1, 32).round().astype("<u2")
    entries = {"Red": ramp, "Green": 0 * ramp, "Blue": ramp[::-1]}
    palette: dict[str, Any] = {"PixelPresentation": "COLOR"}
    for colour, values in entries.items():
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [32, first, bits]
        palette[f"{colour}PaletteColorLookupTableData"] = values.tobytes()
    return palette


@pytest.mark.parametrize("windowed", [True, False])
@pytest.mark.parametrize("inverted", [True, False])
def test_values_of_a_supplemental_palette_are_colours(read: Read, inverted: bool, windowed: bool) -> None:
    values = RAMP.copy()
    values[:8] = 4096 + np.arange(SIDE)
    window = {"WindowCenter": 124, "WindowWidth": 249} if windowed else {}
    described = {"PhotometricInterpretation": "MONOCHROME1" if inverted else "MONOCHROME2", **window}
    read_ = read(dicom(values, **described, **supplemental(4096)))
    image = np.asarray(read_.image).astype(int)
    ramp = np.linspace(0, 255, 32)
    assert np.abs(image[2] - np.stack([ramp, 0 * ramp, ramp[::-1]], axis=-1)).max() <= 1
    grey = EXPECTED * (255 / 248)
    assert np.abs(image[-4, :, 0] - (255 - grey if inverted else grey)).max() <= 1
    assert "palette" in read_.rendering.steps
    plain = read(dicom(values, **{**described, **supplemental(4096), "PixelPresentation": "MONOCHROME"}))
    assert np.ptp(np.asarray(plain.image).astype(int), axis=-1).max() == 0


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(("bits", "words"), [(8, False), (8, True), (16, True)])
def test_a_palette_is_read_in_every_storage(read: Read, syntax: str, bits: int, words: bool) -> None:
    index = RAMP.astype(np.uint8)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    entries = np.arange(256, dtype=f"{order}u2") << (bits - 8)
    # Two bytes in a word: the low one is the first, and big endian stores it last.
    packed = np.arange(256, dtype=np.uint8)
    if syntax == ExplicitVRBigEndian:
        packed = packed.reshape(-1, 2)[:, ::-1]
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        attributes[f"{colour}PaletteColorLookupTableData"] = (
            entries.astype(f"{order}u2") if words else packed
        ).tobytes()
    assert row(read, dicom(index, syntax=syntax, **attributes)).tolist() == EXPECTED.tolist()


@pytest.mark.parametrize("supplemental_", [False, True], ids=["palette", "supplemental"])
@pytest.mark.parametrize(("highest", "corrected"), [(65535, False), (4095, True)])
def test_a_palette_of_fewer_bits_than_described_is_named(
    read: Read, supplemental_: bool, highest: int, corrected: bool
) -> None:
    attributes = supplemental(0) if supplemental_ else supplemental(0) | {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, last in {"Red": highest, "Green": 0, "Blue": highest}.items():
        entries = np.linspace(0, last, 32).round().astype("<u2")
        attributes[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    image = read(dicom(RAMP // 8, **attributes))
    assert ("lut_descriptor_corrected" in image.rendering.steps) == corrected
    assert np.abs(np.asarray(image.image).astype(int)[SIDE // 2, :, 0] - EXPECTED * (255 / 248)).max() <= 1


def group(name: str, **attributes: Any) -> Dataset:
    """Return the functional groups of a frame: one group of one item."""
    item, groups = Dataset(), Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    setattr(groups, name, [item])
    return groups


SHOWN = {"WindowCenter": 128, "WindowWidth": 256}
THRESHOLD = look_up_table([0, 0xFFFF], first=40)


@pytest.mark.parametrize(
    ("name", "own", "files"),
    [
        ("FrameVOILUTSequence", SHOWN, {"VOILUTFunction": "SIGMOID"}),
        ("FrameVOILUTSequence", SHOWN, {"VOILUTSequence": [THRESHOLD]}),
        (
            "PixelValueTransformationSequence",
            {"RescaleSlope": 1, "RescaleIntercept": 0},
            {"ModalityLUTSequence": [THRESHOLD], **SHOWN},
        ),
    ],
    ids=["function", "VOI look-up table", "modality look-up table"],
)
@pytest.mark.parametrize("sequence", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_a_frame_s_group_stands_for_all_of_its_kind_in_the_file(
    read: Read, name: str, own: dict[str, Any], files: dict[str, Any], sequence: str
) -> None:
    data = dicom(RAMP, **files, **{sequence: [group(name, **own)]})
    assert np.abs(row(read, data) - EXPECTED).max() <= 1


@pytest.mark.parametrize("plane", ["1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2"], ids=["XA", "RF"])
@pytest.mark.parametrize("relation", ["LOG", "DISP", "LIN"])
def test_a_table_from_logarithms_back_to_intensities_is_not_for_display(read: Read, plane: str, relation: str) -> None:
    described = {"SOPClassUID": plane, "PixelIntensityRelationship": relation, "ModalityLUTSequence": [THRESHOLD]}
    data = dicom(RAMP, Modality="XA", **described, **SHOWN)
    shades = np.where(EXPECTED > 40, 255, 0) if relation == "LIN" else EXPECTED
    assert np.abs(row(read, data) - shades).max() <= 1
    assert ("modality_lut_ignored" in read(data).rendering.steps) == (relation != "LIN")


@pytest.mark.parametrize("attributes", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0}], ids=["none", "identity"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_eight_bits_without_a_window_are_shown_as_they_are(read: Read, kind: type, attributes: dict[str, Any]) -> None:
    values = (RAMP // 4 + 90).astype(kind)
    data = dicom(values, BitsStored=8, HighBit=7, Modality="US", **attributes)
    assert np.array_equal(row(read, data), values[0])


@pytest.mark.parametrize("count", [1, 3])
def test_groups_of_another_number_of_frames_are_refused_where_they_differ(read: Read, count: int) -> None:
    frames = {"NumberOfFrames": 2, "SharedFunctionalGroupsSequence": [group("FrameVOILUTSequence", **SHOWN)]}
    values = np.stack([RAMP, RAMP])
    other = {"WindowCenter": 10, "WindowWidth": 20}
    groups = [Dataset() for _ in range(count - 1)] + [group("FrameVOILUTSequence", **other)]
    with pytest.raises(UnreadableImage, match=f"describes {count} frames and the file has 2"):
        read(dicom(values, PerFrameFunctionalGroupsSequence=groups, **frames))
    alike = [group("FrameVOILUTSequence", **SHOWN)] * count
    data = dicom(values, PerFrameFunctionalGroupsSequence=alike, **frames)
    assert np.abs(row(read, data, frame=1) - EXPECTED).max() <= 1


def test_a_frame_s_group_of_a_unit_alone_hides_no_rescaling(read: Read) -> None:
    name = "PixelValueTransformationSequence"
    own = [group(name, RescaleType="US")]
    shared = [group(name, RescaleSlope=2, RescaleIntercept=-100, RescaleType="US")]
    window = {"WindowCenter": 156, "WindowWidth": 512}
    data = dicom(RAMP, PerFrameFunctionalGroupsSequence=own, SharedFunctionalGroupsSequence=shared, **window)
    assert np.abs(row(read, data) - EXPECTED).max() <= 1
