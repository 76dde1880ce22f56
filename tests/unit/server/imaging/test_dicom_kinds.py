"""Frames that are not simply an image of a patient: what is not drawn, and what a frame is, is named."""

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medmoe.client.images.dicom import pixels_only
from medmoe.server.errors import BurnedInAnnotation
from tests.support.images.dicom_files import dicom
from tests.support.images.odd_files import matrix_profile
from tests.unit.server.conftest import Read

FRAMES = np.add.outer(np.arange(2) * 7, np.add.outer(np.arange(40), np.arange(40))).astype(np.uint8)
MAPPED = "real_world_values_ignored"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def item(**attributes: Any) -> Dataset:
    found = Dataset()
    for keyword, value in attributes.items():
        setattr(found, keyword, value)
    return found


def group(name: str, **attributes: Any) -> Dataset:
    """Return a functional group of one item."""
    return item(**{name: [item(**attributes)]})


@pytest.mark.parametrize(
    ("attributes", "step"),
    [
        ({"MaskSubtractionSequence": [item(MaskOperation="AVG_SUB", MaskFrameNumbers=1)]}, "subtraction_ignored"),
        ({"MaskSubtractionSequence": [item(MaskOperation="TID", TIDOffset=1)]}, "subtraction_ignored"),
        ({"EnhancedPaletteColorLookupTableSequence": [item(DataPathID="PRIMARY")]}, "palette_ignored"),
        ({"SOPClassUID": SEGMENTATION, "Modality": "SEG"}, "segmentation"),
        ({"TotalPixelMatrixRows": 4000, "TotalPixelMatrixColumns": 40}, "tile"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"RealWorldValueMappingSequence": [item(RealWorldValueSlope=0.01, RealWorldValueIntercept=0.0)]}, MAPPED),
        ({"RealWorldValueMappingSequence": [item(RealWorldValueLUTData=[0.0, 1.0])]}, MAPPED),
        (
            {
                "SharedFunctionalGroupsSequence": [
                    group("RealWorldValueMappingSequence", RealWorldValueSlope=1.0, RealWorldValueIntercept=-5.0)
                ],
            },
            MAPPED,
        ),
        (
            {"SharedFunctionalGroupsSequence": [group("FrameDisplayShutterSequence", ShutterShape="CIRCULAR")]},
            "shutter_ignored",
        ),
    ],
    ids=str,
)
def test_what_a_frame_is_is_named(read: Read, attributes: dict[str, Any], step: str) -> None:
    plain = read(dicom(FRAMES, NumberOfFrames=2), frame=1)
    found = read(dicom(FRAMES, NumberOfFrames=2, **attributes), frame=1)
    assert found.rendering.steps == (*plain.rendering.steps, step)
    assert found.pixels == plain.pixels


@pytest.mark.parametrize(
    "attributes",
    [
        {"MaskSubtractionSequence": [item(MaskOperation="NONE")]},
        {"TotalPixelMatrixRows": 40, "TotalPixelMatrixColumns": 40},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
        {"ImageType": "ORIGINAL"},
        {"RealWorldValueMappingSequence": [item(RealWorldValueSlope=1.0, RealWorldValueIntercept=0.0)]},
    ],
    ids=str,
)
def test_a_whole_image_has_no_name_of_a_part(read: Read, attributes: dict[str, Any]) -> None:
    assert read(dicom(FRAMES[0], **attributes)).rendering.steps == read(dicom(FRAMES[0])).rendering.steps


def test_a_mapping_to_the_units_of_the_rescaling_is_not_named(read: Read) -> None:
    mapping = item(RealWorldValueSlope=0.5, RealWorldValueIntercept=-3.0)
    same, other = (
        read(dicom(FRAMES[0], RescaleSlope=slope, RescaleIntercept=-3, RealWorldValueMappingSequence=[mapping]))
        for slope in (0.5, 0.25)
    )
    assert MAPPED not in same.rendering.steps
    assert MAPPED in other.rendering.steps


@pytest.mark.parametrize("sequence", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_pixels_of_an_enhanced_object_are_made_square_by_their_frames_spacing(read: Read, sequence: str) -> None:
    groups = [group("PixelMeasuresSequence", PixelSpacing=[1, 1]), group("PixelMeasuresSequence", PixelSpacing=[2, 1])]
    shared = sequence.startswith("Shared")
    data = dicom(FRAMES, NumberOfFrames=2, **{sequence: groups[1:] if shared else groups})
    found = read(data, frame=1)
    assert found.rendering.steps[-1] == "pixel_aspect"
    assert found.pixels == read(dicom(FRAMES[1], PixelSpacing=[2, 1])).pixels
    assert ("pixel_aspect" in read(data, frame=0).rendering.steps) == shared


@pytest.mark.parametrize(
    "attributes", [{"SpecimenLabelInImage": "YES"}, {"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}], ids=str
)
def test_the_label_of_a_slide_is_burned_in_text(read: Read, attributes: dict[str, Any]) -> None:
    with pytest.raises(BurnedInAnnotation):
        read(dicom(FRAMES[0], **attributes))
    read(dicom(FRAMES[0], BurnedInAnnotation="NO", **attributes))
    read(dicom(FRAMES[0], **attributes), config={"burned_in": "accept"})


def test_the_profile_of_a_slide_is_that_of_the_frame_s_optical_path(read: Read) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    linear, other = matrix_profile(gamma=1.0), matrix_profile(gamma=3.0)
    path = item(OpticalPathIdentifier="1", ICCProfile=linear)
    own: dict[str, Any] = {"colours": 3, "Modality": "SM"}
    expected = read(dicom(colours, ICCProfile=linear, **own))
    alone = dicom(colours, OpticalPathSequence=[path], **own)
    assert read(alone).pixels == read(pixels_only(alone).data).pixels == expected.pixels
    own["OpticalPathSequence"] = [item(OpticalPathIdentifier="2", ICCProfile=other), path]
    identified = group("OpticalPathIdentificationSequence", OpticalPathIdentifier="1")
    named = read(dicom(colours, SharedFunctionalGroupsSequence=[identified], **own))
    assert (named.pixels, named.rendering.steps) == (expected.pixels, ("icc_profile",))
    assert read(dicom(colours, **own)).rendering.steps == ("icc_profile_ignored",)


@pytest.mark.parametrize(
    "attributes",
    [
        {"PixelSpacing": [2, 1]},
        {"ImagerPixelSpacing": [2, 1]},
        {"NominalScannedPixelSpacing": [2, 1]},
        {"ImagePlanePixelSpacing": [2, 1]},
        {"PixelAspectRatio": [2, 1]},
        {"PixelAspectRatio": [1, 1], "PixelSpacing": [2, 1]},
        {"PerFrameFunctionalGroupsSequence": [group("PixelMeasuresSequence", PixelSpacing=[2, 1])]},
        {"SharedFunctionalGroupsSequence": [group("FramePixelDataPropertiesSequence", ImagerPixelSpacing=[2, 1])]},
    ],
    ids=str,
)
def test_pixels_of_any_spacing_are_made_square(read: Read, attributes: dict[str, Any]) -> None:
    data = dicom(FRAMES[0], **attributes)
    found, expected = read(data), read(dicom(FRAMES[0].repeat(2, axis=0)))
    assert found.rendering.steps == (*expected.rendering.steps, "pixel_aspect")
    assert np.abs(np.asarray(found.image).astype(int) - np.asarray(expected.image)).max() <= 8
    assert read(pixels_only(data).data).pixels == found.pixels
