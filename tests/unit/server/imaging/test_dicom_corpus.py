"""Every file that pydicom ships for its own tests, and what becomes of it here. Nothing is downloaded."""

from pathlib import Path

import numpy as np
import pydicom.data
import pytest

from medmoe.model.errors import MedMoEError
from medmoe.server.http.error_table import HTTP_MEANING
from tests.unit.server.conftest import Read

ROOT = Path(pydicom.data.__path__[0]) / "test_files"

NOT_DICOM = "no DICOM prefix"
PACKED = "gzip"
NO_PIXELS = "holds no pixel data"
DIRECTORY = "DICOM directory"
REASONS = {
    NOT_DICOM: (415, "unsupported_image", "none of PNG"),
    PACKED: (415, "unsupported_image", "gunzip"),
    NO_PIXELS: (422, "unreadable_image", NO_PIXELS),
    DIRECTORY: (415, "unsupported_image", DIRECTORY),
    "no syntax": (415, "unsupported_image", "transfer syntax"),
    "cut": (422, "unreadable_image", "damaged or truncated"),
    "lies": (422, "unreadable_image", "announce different sizes"),
    "incomplete": (422, "unreadable_image", "lacks a number"),
    "blank": (422, "uniform_image", "one shade"),
}

REFUSED = {
    NOT_DICOM: """README.txt crayons.icc no_meta.dcm rtplan.dump
        rtstruct.dump test1.json test_PN.json dicomdirtests/README.txt dicomdirtests/TINY_ALPHA/README""",
    PACKED: "zipMR.gz",
    NO_PIXELS: """ExplVR_BigEndNoMeta.dcm ExplVR_LitEndNoMeta.dcm rtstruct.dcm
        UN_sequence.dcm empty_charset_LEI.dcm no_meta_group_length.dcm priv_SQ.dcm reportsi.dcm
        reportsi_with_empty_number_tags.dcm rtplan.dcm rtplan_truncated.dcm test-SR.dcm waveform_ecg.dcm""",
    DIRECTORY: """dicomdirtests/DICOMDIR dicomdirtests/DICOMDIR-bigEnd dicomdirtests/DICOMDIR-empty.dcm
        dicomdirtests/DICOMDIR-implicit dicomdirtests/DICOMDIR-nooffset dicomdirtests/DICOMDIR-nopatient
        dicomdirtests/DICOMDIR-reordered dicomdirtests/TINY_ALPHA/DICOMDIR""",
    "no syntax": "meta_missing_tsyntax.dcm",
    "cut": "MR_truncated.dcm",
    "lies": "JPEG2000-embedded-sequence-delimiter.dcm",
    "incomplete": "badVR.dcm nested_priv_SQ.dcm",
    "blank": "dicomdirtests/77654033/CT2/17166 dicomdirtests/77654033/CT2/17196",
}
"""By reason; of dicomdirtests/TINY_ALPHA every file but README and DICOMDIR holds no pixels."""

READ = {
    "MONOCHROME1 rescale window invert": """dicomdirtests/77654033/CR1/6154 dicomdirtests/77654033/CR2/6247
        dicomdirtests/77654033/CR3/6278""",
    "MONOCHROME2": "image_dfl.dcm JPEGLSNearLossless_08.dcm",
    "MONOCHROME2 rescale stretch": "CT_small.dcm",
    "MONOCHROME2 rescale window": """693_J2KI.dcm dicomdirtests/77654033/CT2/17106
        dicomdirtests/77654033/CT2/17136
        dicomdirtests/98892001/CT5N/2062
        dicomdirtests/98892001/CT5N/2392 dicomdirtests/98892001/CT5N/2693 dicomdirtests/98892001/CT5N/3023
        dicomdirtests/98892001/CT5N/3353""",
    "MONOCHROME2 rescale padding_inferred window": "J2K_pixelrep_mismatch.dcm",
    "MONOCHROME2 rescale window localizer pixel_aspect": """dicomdirtests/98892001/CT2N/6293
        dicomdirtests/98892001/CT2N/6924""",
    "MONOCHROME2 stretch": """JPEG2000.dcm JPEG-lossy.dcm JPGExtended.dcm JPEGLSNearLossless_16.dcm rtdose.dcm
        rtdose_1frame.dcm rtdose_expb.dcm rtdose_expb_1frame.dcm rtdose_rle.dcm
        rtdose_rle_1frame.dcm""",
    "MONOCHROME2 segmentation stretch": "liver_1frame.dcm liver_expb_1frame.dcm",
    "MONOCHROME2 window": """MR_small.dcm MR_small_RLE.dcm MR_small_bigendian.dcm MR_small_expb.dcm
        MR_small_implicit.dcm MR_small_jp2klossless.dcm MR_small_jpeg_ls_lossless.dcm MR_small_padded.dcm""",
    "MONOCHROME2 window overlay_ignored": "examples_overlay.dcm",
    "PALETTE COLOR palette high_byte": "examples_palette.dcm",
    "RGB": """ExplVR_BigEnd.dcm SC_jpeg_no_color_transform.dcm SC_jpeg_no_color_transform_2.dcm SC_rgb_dcmtk_+eb+cr.dcm
        SC_rgb_gdcm_KY.dcm SC_rgb_jls_lossy_line.dcm SC_rgb_jls_lossy_sample.dcm SC_rgb_jpeg.dcm
        SC_rgb_jpeg_app14_dcmd.dcm SC_rgb_jpeg_dcmd.dcm SC_rgb_jpeg_gdcm.dcm SC_rgb_rle.dcm SC_rgb_rle_2frame.dcm
        SC_rgb_small_odd.dcm SC_rgb_small_odd_big_endian.dcm examples_rgb_color.dcm""",
    "RGB high_byte": """SC_rgb_rle_16bit.dcm SC_rgb_rle_16bit_2frame.dcm SC_rgb_rle_32bit.dcm
        SC_rgb_rle_32bit_2frame.dcm""",
    "YBR_FULL": """SC_rgb_dcmtk_+eb+cy+n1.dcm SC_rgb_dcmtk_+eb+cy+n2.dcm SC_rgb_dcmtk_+eb+cy+s4.dcm
        SC_rgb_jpeg_dcmtk.dcm SC_rgb_jpeg_lossy_gdcm.dcm SC_rgb_small_odd_jpeg.dcm""",
    "YBR_FULL_422": """SC_rgb_dcmtk_+eb+cy+np.dcm SC_rgb_dcmtk_+eb+cy+s2.dcm SC_ybr_full_422_uncompressed.dcm
        examples_ybr_color.dcm""",
    "YBR_RCT": "GDCMJ2K_TextGBR.dcm examples_jpeg2k.dcm",
}
"""By how they are stored and what is done to them; dicomdirtests/98892003 holds MR series with windows."""

FRAMES = {"examples_ybr_color.dcm": 30, "SC_rgb_rle_2frame.dcm": 2, "rtdose.dcm": 15, "rtdose_rle.dcm": 15}

COLOUR_BARS = [
    name for family in READ.values() for name in family.split()
    if name.startswith(("SC_rgb_dcmtk", "SC_rgb_gdcm", "SC_rgb_jls", "SC_rgb_rle", "SC_ybr", "SC_rgb_jpeg_dcmtk",
                        "SC_rgb_jpeg_gdcm", "SC_rgb_jpeg_lossy"))
]  # fmt: skip
"""One image in many encodings."""


def names() -> list[str]:
    found = (path for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path.suffix != ".py")


def verdict(name: str) -> str:
    """The key of REFUSED or READ under which the file stands."""
    for table in (REFUSED, READ):
        for key, members in table.items():
            if name in members.split():
                return key
    if name.startswith("dicomdirtests/98892003/"):
        return "MONOCHROME2 window"
    if name.startswith("dicomdirtests/TINY_ALPHA/"):
        return NO_PIXELS
    raise AssertionError(f"pydicom ships a file that stands in no table: {name}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", names())
def test_each_file_is_read_or_refused_as_the_table_says(read: Read, name: str) -> None:
    data, expected = (ROOT / name).read_bytes(), verdict(name)
    if expected in REASONS:
        status, code, words = REASONS[expected]
        with pytest.raises(MedMoEError, match=words) as caught:
            read(data)
        meaning = HTTP_MEANING[type(caught.value)]
        assert (meaning.status, meaning.code, meaning.param) == (status, code, "image")
        return
    decoded = read(data)
    assert " ".join((decoded.rendering.colour, *decoded.rendering.steps)) == expected
    assert decoded.rendering.frames >= FRAMES.get(name, 1)
    assert decoded.image.size == (32, 32)


def test_there_are_enough_files_to_mean_something() -> None:
    assert len(names()) > 150


@pytest.mark.parametrize("name", COLOUR_BARS)
def test_the_same_colours_come_out_of_every_encoding(read: Read, name: str) -> None:
    def pixels(file: str) -> np.ndarray:
        return np.asarray(read((ROOT / file).read_bytes(), config={"size": 100}).image, dtype=int)

    # Lossy ones blur the edges between the bars.
    assert np.abs(pixels(name) - pixels("SC_rgb_rle.dcm")).mean() < 3
    assert pixels(name)[5, 50].tolist() == pytest.approx([255, 0, 0], abs=20)
