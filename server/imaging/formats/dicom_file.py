"""Parse a DICOM file and check its header before any pixel data are decoded.

No error holds the text of an attribute: it may name a patient.
"""

import io
import zlib
from collections.abc import Mapping
from typing import Any

from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from medmoe.server.errors import BurnedInAnnotation, ImageTooLarge, InvalidField, UnreadableImage, UnsupportedImage
from medmoe.server.imaging.config import ImageLimits
from medmoe.server.imaging.formats.codestream import FrameHeader, frame_header
from medmoe.server.imaging.formats.limits import check_frames, check_size
from medmoe.server.schemas.images import BurnedIn

# Values out of their VR's rules are common and often harmless; a warning about one would quote it.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE

DECODERS: Mapping[str, str] = {
    ImplicitVRLittleEndian: "",
    ExplicitVRLittleEndian: "",
    ExplicitVRBigEndian: "",
    DeflatedExplicitVRLittleEndian: "",
    RLELossless: "pylibjpeg",
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "gdcm",
    JPEGLSNearLossless: "gdcm",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
}
"""Accepted transfer syntaxes, each with pydicom's name of the one library that decodes it here."""

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_COLOURS = {
    "MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1,
    "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "YBR_ICT": 3, "YBR_RCT": 3,
}  # fmt: skip
"""Photometric interpretations that are read, and their samples a pixel."""
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_OFTEN_ANNOTATED = frozenset({"US", "IVUS", "ES", "XC", "GM", "OT", "DOC", "SC"})
"""Modalities whose devices write into the picture."""
_LARGEST_INFLATED = 256 * 2**20
"""Bytes of a deflated file once inflated: as much as the largest uncompressed frames need."""


class DicomFile:
    """One file that passed the checks; `frame` is the one to show."""

    def __init__(self, data: bytes, *, frame: int | None, limits: ImageLimits, burned_in: BurnedIn) -> None:
        """Raises UnsupportedImage, ImageTooLarge, UnreadableImage, BurnedInAnnotation, InvalidField, or anything."""
        self.dataset = _parse(data)
        if self.dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            raise UnsupportedImage("a DICOM directory is no picture, and the files it names are not opened")
        self.transfer_syntax = UID(str(self.dataset.file_meta.TransferSyntaxUID))
        present = [keyword for keyword in _PIXELS if keyword in self.dataset]
        if len(present) != 1:
            raise UnreadableImage("the DICOM file holds no pixel data")
        self.pixel_keyword = present[0]
        self.height, self.width = (_whole(self.dataset, keyword) for keyword in ("Rows", "Columns"))
        check_size(self.width, self.height, limits)
        self.frames = _whole(self.dataset, "NumberOfFrames", default=1)
        check_frames(self.frames, limits)
        if (frame or 0) >= self.frames:
            raise InvalidField(f"frames count from 0 and this picture has {self.frames}", param="frame")
        self.frame = frame or 0
        self.colour = str(self.dataset.get("PhotometricInterpretation", ""))
        if _COLOURS.get(self.colour) != _whole(self.dataset, "SamplesPerPixel"):
            raise UnsupportedImage("the DICOM picture's photometric interpretation is not read")
        if _whole(self.dataset, "BitsAllocated") not in (1, 8, 16, 32, 64):
            raise UnsupportedImage("the DICOM picture's bits a sample are not read")
        _check_annotation(self.dataset, burned_in)
        self.decoder = DECODERS[self.transfer_syntax]
        """pydicom's name of the library."""
        if self.transfer_syntax.is_encapsulated:
            self._check_frame_header()

    def _check_frame_header(self) -> None:
        """A frame's own header decides how much a decoder allocates: it must say what the file's says."""
        if self.transfer_syntax == RLELossless:
            return
        found = self._frame_header()
        if found is None or (found.width, found.height) != (self.width, self.height):
            raise UnreadableImage("the compressed frame and the DICOM header announce different sizes")
        if found.components != _whole(self.dataset, "SamplesPerPixel"):
            raise UnreadableImage("the compressed frame and the DICOM header announce different samples")
        if self.decoder == "pillow" and found.precision > 8:
            raise UnsupportedImage("JPEG of more than 8 bits is read only when it is lossless")

    def _frame_header(self) -> FrameHeader | None:
        frame = get_frame(self.dataset.PixelData, self.frame, number_of_frames=self.frames)
        return frame_header(frame)


def _parse(data: bytes) -> Dataset:
    start = dcmread(io.BytesIO(data[:132] + _meta_bytes(data)), specific_tags=[])
    syntax = str(start.file_meta.get("TransferSyntaxUID", ""))
    if syntax not in DECODERS:
        raise UnsupportedImage("the DICOM transfer syntax is missing or not accepted")
    if syntax != DeflatedExplicitVRLittleEndian:
        return dcmread(io.BytesIO(data))
    # pydicom would inflate without a limit.
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(data[132 + len(_meta_bytes(data)) :], _LARGEST_INFLATED)
    if inflater.unconsumed_tail:
        raise ImageTooLarge(f"the deflated DICOM file is over {_LARGEST_INFLATED} bytes once inflated")
    start.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta = DicomBytesIO()
    write_file_meta_info(meta, start.file_meta, enforce_standard=False)
    return dcmread(io.BytesIO(data[:132] + meta.getvalue() + inflated))


def _meta_bytes(data: bytes) -> bytes:
    """Group 0002, always explicit VR little endian, element by element until another group begins."""
    position = 132
    while data[position : position + 2] == b"\x02\x00":
        if data[position + 4 : position + 6] in (b"OB", b"OW", b"UN", b"SQ", b"UT"):
            position += 12 + int.from_bytes(data[position + 8 : position + 12], "little")
        else:
            position += 8 + int.from_bytes(data[position + 6 : position + 8], "little")
    return data[132:position]


def _whole(dataset: Dataset, keyword: str, *, default: int | None = None) -> int:
    value: Any = dataset.get(keyword)
    if value is None and default is not None:
        return default
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise UnreadableImage("the DICOM header lacks a number that describes the picture") from error


def _check_annotation(dataset: Dataset, policy: BurnedIn) -> None:
    if policy == "accept":
        return
    marked = str(dataset.get("BurnedInAnnotation", "")).strip().upper()
    if marked == "YES":
        raise BurnedInAnnotation()
    suspect = (
        str(dataset.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE)
        or str(dataset.get("Modality", "")).strip().upper() in _OFTEN_ANNOTATED
    )
    if policy == "refuse_unless_clear" and suspect and marked != "NO":
        raise BurnedInAnnotation(
            "pictures of this kind are taken only when the DICOM file says that no text is burned in "
            "(MEDMOE_DICOM_BURNED_IN)"
        )
