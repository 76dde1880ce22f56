"""Parse a DICOM file and check its header before any pixel data are decoded.

No error holds the text of an attribute: it may name a patient.
"""

import io
import zlib

from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from medmoe.server.errors import BurnedInAnnotation, ImageTooLarge, InvalidField, UnreadableImage, UnsupportedImage
from medmoe.server.imaging.config import ImageLimits
from medmoe.server.imaging.formats.dicom.attributes import code, get, number, whole
from medmoe.server.imaging.formats.dicom.codestream import frame_header
from medmoe.server.imaging.formats.dicom.encapsulation import END, ITEM, split_frames
from medmoe.server.imaging.formats.dicom.transfer_syntax import DECODERS, DEFLATED_FRAMES, LOSSY, require_decoder
from medmoe.server.imaging.formats.limits import check_frames, check_size
from medmoe.server.schemas.images import BurnedIn, RenderingStep

# Values out of their VR's rules are common and often harmless; a warning about one would quote it.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_SAMPLES = {
    "MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1,
    "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "YBR_ICT": 3, "YBR_RCT": 3,
}  # fmt: skip
"""Photometric interpretations that are read, and their samples a pixel."""
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_OFTEN_ANNOTATED = frozenset({"US", "IVUS", "ES", "XC", "GM", "OT", "DOC", "SC"})
"""Modalities whose devices write into the image."""
_LARGEST_INFLATED = 256 * 2**20
"""Bytes of a deflated file once inflated: as much as the largest uncompressed frames need."""


class DicomFile:
    """A file that passed the checks."""

    def __init__(self, data: bytes, *, frame: int | None, limits: ImageLimits, burned_in: BurnedIn) -> None:
        """Check the header of `data`, and of the frame to show if it is compressed.

        Raises UnsupportedImage, ImageTooLarge, UnreadableImage, BurnedInAnnotation, InvalidField, or anything that
        pydicom raises.
        """
        self.repairs: list[RenderingStep] = []
        self.dataset = self._parse(data)
        dataset = self.dataset
        if dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            raise UnsupportedImage("a DICOM directory is no picture, and the files it names are not opened")
        self.transfer_syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
        present = [keyword for keyword in _PIXELS if keyword in dataset]
        if len(present) != 1:
            raise UnreadableImage("the DICOM file holds no pixel data")
        self.pixel_keyword = present[0]
        self.encapsulated = self.transfer_syntax == DEFLATED_FRAMES or self.transfer_syntax.is_encapsulated
        self.height, self.width = (whole(dataset, keyword) for keyword in ("Rows", "Columns"))
        check_size(self.width, self.height, limits)
        declared = self._declared_frames()
        check_frames(declared or 1, limits)
        self.colour = code(dataset, "PhotometricInterpretation")
        samples = _SAMPLES.get(self.colour)
        if samples is None or self._inferred("SamplesPerPixel", samples) != samples:
            raise UnsupportedImage("the DICOM picture's photometric interpretation is not read")
        self.samples = samples
        self.bits_allocated = whole(dataset, "BitsAllocated")
        if self.bits_allocated not in (1, 8, 16, 32, 64):
            raise UnsupportedImage("the DICOM picture's bits a sample are not read")
        self.signed = self.pixel_keyword == "PixelData" and self._inferred("PixelRepresentation", 0) == 1
        self._check_bits()
        self.planar_configuration = self._inferred("PlanarConfiguration", 0) if samples > 1 else 0
        _check_annotation(dataset, burned_in)
        self.decoder = DECODERS[self.transfer_syntax]
        """pydicom's name of the library."""
        streams = self._streams(declared)
        self.frames = declared or (len(streams) if streams else 1)
        check_frames(self.frames, limits)
        if (frame or 0) >= self.frames:
            raise InvalidField(f"frames count from 0 and this picture has {self.frames}", param="frame")
        self.frame = frame or 0
        self.stream = streams[self.frame] if streams else None
        """The frame's compressed bytes; None for uncompressed pixel data."""
        if self.stream is not None:
            self._check_frame_header(self.stream)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame of whole bytes."""
        pixels = self.width * self.height * (self.bits_allocated // 8)
        # Two pixels share their chrominance where it is subsampled and uncompressed.
        subsampled = self.colour == "YBR_FULL_422" and not self.encapsulated
        return pixels * 2 if subsampled else pixels * self.samples

    @property
    def big_endian(self) -> bool:
        return self.transfer_syntax == ExplicitVRBigEndian

    @property
    def lossy(self) -> bool:
        """Whether the values may have been changed by compression, now or earlier."""
        return code(self.dataset, "LossyImageCompression") == "01" or self.transfer_syntax in LOSSY

    @property
    def pixel_aspect(self) -> float:
        """Height of a pixel over its width; 1 where the file does not say."""
        for keyword in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"):
            vertical, horizontal = number(self.dataset, keyword), number(self.dataset, keyword, index=1)
            if vertical and horizontal and vertical > 0 and horizontal > 0:
                ratio = vertical / horizontal
                return ratio if abs(ratio - 1) > 0.01 else 1.0
        return 1.0

    def _parse(self, data: bytes) -> Dataset:
        body, repairs = with_meta(data)
        self.repairs += repairs
        dataset = _read(body)
        if not any(keyword in dataset for keyword in _PIXELS) and ITEM in body and body.rstrip(b"\0")[-4:] != END[:4]:
            # Without the delimiter of its sequence pydicom drops the pixel data.
            closed = _read(body + END)
            if "PixelData" in closed:
                self.repairs.append("delimiter_added")
                return closed
        return dataset

    def _inferred(self, keyword: str, value: int) -> int:
        if get(self.dataset, keyword) is None:
            self._note("attribute_inferred")
            return value
        return whole(self.dataset, keyword)

    def _note(self, step: RenderingStep) -> None:
        if step not in self.repairs:
            self.repairs.append(step)

    def _declared_frames(self) -> int | None:
        declared = get(self.dataset, "NumberOfFrames")
        if declared is None:
            return None
        frames = whole(self.dataset, "NumberOfFrames")
        if frames == 0:
            self._note("frame_count")
            return 1
        return frames

    def _check_bits(self) -> None:
        if self.pixel_keyword != "PixelData":
            self.bits_stored, self.shift = self.bits_allocated, 0
            return
        self.bits_stored = self._inferred("BitsStored", self.bits_allocated)
        if not 1 <= self.bits_stored <= self.bits_allocated:
            raise UnreadableImage("the DICOM header's BitsStored does not fit its BitsAllocated")
        high = whole(self.dataset, "HighBit", default=self.bits_stored - 1)
        self.shift = high - self.bits_stored + 1
        if high >= self.bits_allocated or self.shift < 0:
            # No bits lie there: those of the usual place are meant.
            self.shift = 0
            self._note("high_bit")
        elif self.shift:
            self._note("high_bit")

    def _streams(self, declared: int | None) -> list[bytes]:
        if not self.encapsulated or self.pixel_keyword != "PixelData":
            if self.pixel_keyword == "PixelData" and self.dataset["PixelData"].is_undefined_length:
                raise UnreadableImage("the DICOM pixel data are compressed and the transfer syntax says they are not")
            return []
        streams = split_frames(self.dataset.PixelData, declared=declared)
        if declared is not None and len(streams) != declared:
            self._note("frame_count")
        return streams

    def _check_frame_header(self, stream: bytes) -> None:
        """A frame's own header decides how much a decoder allocates: it must say what the file's says."""
        if self.transfer_syntax in (RLELossless, DEFLATED_FRAMES):
            return
        found = frame_header(stream)
        if found is None or (found.width, found.height) != (self.width, self.height):
            raise UnreadableImage("the compressed frame and the DICOM header announce different sizes")
        if found.components != self.samples:
            raise UnreadableImage("the compressed frame and the DICOM header announce different samples")
        if self.decoder == "pillow" and found.precision > 8:
            raise UnsupportedImage(
                "JPEG of more than 8 bits is read only when it is lossless; convert the file with dcmdjpeg (DCMTK)"
            )
        if self.transfer_syntax.name.startswith("JPEG-LS") and found.precision in (6, 7):
            raise UnsupportedImage("JPEG-LS of 6 or 7 bits is not read; convert the file with dcmdjpls (DCMTK)")


def _read(data: bytes) -> Dataset:
    return dcmread(io.BytesIO(data))


def with_meta(data: bytes) -> tuple[bytes, list[RenderingStep]]:
    """Return the file with preamble and meta header, inflated, and the repairs that this took.

    Raises UnsupportedImage for a transfer syntax that is not decoded, ImageTooLarge.
    """
    repairs: list[RenderingStep] = []
    if data[128:132] != b"DICM":
        data = bytes(128) + b"DICM" + data
        repairs.append("meta_header_added")
    meta = _meta_bytes(data)
    rest = 132 + len(meta)
    start = dcmread(io.BytesIO(data[:rest]), specific_tags=[]).file_meta if meta else FileMetaDataset()
    syntax = str(start.get("TransferSyntaxUID") or "").strip(" \0")
    if not syntax:
        syntax = _guessed_syntax(data[rest : rest + 8])
        if "meta_header_added" not in repairs:
            repairs.append("meta_header_added")
    require_decoder(syntax)
    if start.get("TransferSyntaxUID") == syntax and syntax != DeflatedExplicitVRLittleEndian:
        return data, repairs
    body = data[rest:]
    if syntax == DeflatedExplicitVRLittleEndian:
        # pydicom would inflate without a limit.
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        body = inflater.decompress(body, _LARGEST_INFLATED)
        if inflater.unconsumed_tail:
            raise ImageTooLarge(f"the deflated DICOM file is over {_LARGEST_INFLATED} bytes once inflated")
        syntax = str(ExplicitVRLittleEndian)
    start.TransferSyntaxUID = UID(syntax)
    written = DicomBytesIO()
    write_file_meta_info(written, start, enforce_standard=False)
    return data[:132] + written.getvalue() + body, repairs


def _guessed_syntax(element: bytes) -> str:
    """Return the uncompressed transfer syntax in which an element of group 0008 begins, empty where none does."""
    explicit = element[4:6].isalpha() and element[4:6].isupper()
    if element[:2] == b"\x00\x08":
        return str(ExplicitVRBigEndian) if explicit else ""
    if element[:2] != b"\x08\x00":
        return ""
    return str(ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian)


def _meta_bytes(data: bytes) -> bytes:
    """Return group 0002, always explicit VR little endian, element by element until another group begins."""
    position = 132
    while data[position : position + 2] == b"\x02\x00":
        if data[position + 4 : position + 6] in (b"OB", b"OW", b"UN", b"SQ", b"UT"):
            position += 12 + int.from_bytes(data[position + 8 : position + 12], "little")
        else:
            position += 8 + int.from_bytes(data[position + 6 : position + 8], "little")
    return data[132:position]


def _check_annotation(dataset: Dataset, policy: BurnedIn) -> None:
    if policy == "accept":
        return
    marked = code(dataset, "BurnedInAnnotation")
    if marked == "YES":
        raise BurnedInAnnotation()
    suspect = (
        str(get(dataset, "SOPClassUID") or "").startswith(_SECONDARY_CAPTURE)
        or code(dataset, "Modality") in _OFTEN_ANNOTATED
    )
    if policy == "refuse_unless_clear" and suspect and marked != "NO":
        raise BurnedInAnnotation(
            "pictures of this kind are taken only when the DICOM file says that no text is burned in "
            "(MEDMOE_DICOM_BURNED_IN)"
        )
