"""Damaged images of every format: what comes out is an image or one of our errors, whatever the bytes are.

In the test's own process, so that a stranger's exception is seen; a crash of native code would end the test run.
"""

import io
import string
from functools import cache

import numpy as np
import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread

from medmoe.model.errors import ImageError
from medmoe.server.errors import RequestError
from medmoe.server.imaging.formats.reader import ImageReader
from medmoe.server.schemas.images import ImageFields
from tests.support.images.dicom_files import dicom, gradient, look_up_table
from tests.support.images.hostile_images import encoded
from tests.unit.server.conftest import decoder_config

FORMATS = ["PNG", "PNG palette", "PNG 16", "JPEG", "JPEG CMYK", "TIFF", "TIFF LZW", "WEBP", "BMP", "APNG"]
DICOMS = ["plain", "tables", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
          "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_small_odd_jpeg.dcm", "image_dfl.dcm"]  # fmt: skip
EXAMPLES = 40
"""For each format: seconds in all. A longer search takes a larger number, nothing else."""


@cache
def seed(kind: str) -> bytes:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    match kind:
        case "PNG palette":
            return encoded(noise.convert("P"), "PNG", transparency=3)
        case "PNG 16":
            return encoded(Image.fromarray(gradient(dtype=np.uint16, low=0)), "PNG")
        case "JPEG CMYK":
            return encoded(noise.convert("CMYK"), "JPEG", exif=exif)
        case "TIFF LZW":
            return encoded(noise, "TIFF", compression="tiff_lzw", save_all=True, append_images=[noise])
        case "APNG":
            return encoded(noise, "PNG", save_all=True, append_images=[noise.rotate(90)])
        case "plain":
            return dicom(gradient(), RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
        case "tables":
            table = look_up_table(list(range(64)))
            return dicom(gradient(low=0), ModalityLUTSequence=[table], VOILUTSequence=[look_up_table([0, 9, 99])])
        case name if name.endswith(".dcm"):
            dataset = dcmread(f"{pydicom.data.__path__[0]}/test_files/{name}")
            file = io.BytesIO()
            dataset.save_as(file)
            return file.getvalue()
        case _:
            return encoded(noise, kind)


def damages(size: int) -> st.SearchStrategy[list[tuple[int, int, bytes]]]:
    """Splices: from, length, what stands there instead."""
    # Headers are at the front: half of the damage goes there.
    place = st.integers(0, size - 1) | st.integers(0, min(size - 1, 400))
    extreme = st.sampled_from([b"\0", b"\xff", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"])
    return st.lists(
        st.tuples(place, st.integers(0, 8) | st.integers(0, size), st.binary(max_size=8) | extreme),
        min_size=1,
        max_size=4,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS + DICOMS)
def test_damage_is_refused_or_shown(kind: str) -> None:
    whole = seed(kind)
    head = 132 if kind in DICOMS else 0
    reader = ImageReader(decoder_config(max_pixels=2**18, max_frames=50))

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(damage=damages(len(whole) - head), frame=st.sampled_from([None, 0, 1]), kept=st.integers(0, len(whole)))
    def damaged(damage: list[tuple[int, int, bytes]], frame: int | None, kept: int) -> None:
        data = bytearray(whole)
        for start, length, instead in damage:
            data[head + start : head + start + min(length, 64)] = instead
        if kept < len(whole) // 8:
            del data[head + kept * 8 :]
        try:
            decoded = reader.read(bytes(data), ImageFields(frame=frame))
        except (RequestError, ImageError):
            return
        assert (decoded.image.mode, decoded.image.size) == ("RGB", (32, 32))
        assert max(decoded.width, decoded.height) ** 2 <= 2**18

    damaged()


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(data=st.binary(max_size=300) | st.text(string.printable + "\u00e9\u4e2d\0", max_size=300))
def test_any_bytes_and_any_text_are_refused(data: bytes | str) -> None:
    with pytest.raises(RequestError):
        ImageReader(decoder_config()).read(data, ImageFields())
