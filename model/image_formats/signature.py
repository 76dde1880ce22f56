"""Recognise the format of an image file by its first bytes or its name, and name the PNG that is rendered of it."""

from pathlib import PurePath
from typing import Literal

RasterFormat = Literal["PNG", "JPEG", "TIFF", "BMP", "WEBP"]

JPEG, JPEG_2000, JP2 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "
"""How a JPEG or JPEG-LS, a code stream of JPEG 2000, and a file of one begin."""
RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
HEAD = 132
"""Number of leading bytes that identify a file format."""
_MAGIC: tuple[tuple[bytes, RasterFormat], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (JPEG, "JPEG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
)
_PREAMBLE = 128
"""Bytes before DICOM's magic word; free for any use, so that a DICOM file may be a TIFF too."""
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
"""Group of the first element in a DICOM file without preamble: meta header, data set, big-endian data set."""


def raster_format(data: bytes) -> RasterFormat | None:
    """Return the format of `data`, None for one that is not read. Ask `is_dicom` first."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def is_dicom(data: bytes) -> bool:
    """Return whether `data`, of which HEAD bytes suffice, are DICOM: with a preamble, or an element without one."""
    return has_preamble(data) or (len(data) >= HEAD and data.startswith(_FIRST_GROUPS) and _is_element(data))


def has_preamble(data: bytes) -> bool:
    """Return whether DICOM's magic word follows a preamble (PS3.10 7.1)."""
    return data[_PREAMBLE:HEAD] == b"DICM"


def rendered_name(name: str) -> str:
    """Return the name of the PNG that `medmoe render` writes of an image file."""
    path = PurePath(name)
    # DICOM files are often named by a UID, whose last number is no suffix.
    has_suffix = path.suffix.lower() in RASTER_SUFFIXES + DICOM_SUFFIXES
    return str(path.with_name(f"{path.stem if has_suffix else path.name}.png"))


def _is_element(data: bytes) -> bool:
    """Return whether a DICOM element begins here: a plausible element number, then a VR or a short length."""
    big_endian = data[0] == 0
    element = int.from_bytes(data[2:4], "big" if big_endian else "little")
    explicit = data[4:6].isalpha() and data[4:6].isupper()
    short = not big_endian and int.from_bytes(data[4:8], "little") < 1024
    return element <= 0x1FFF and (explicit or short)
