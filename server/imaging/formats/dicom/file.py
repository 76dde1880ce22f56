"""Parse a DICOM file and check its header before any pixel data are decoded.

No error holds the text of an attribute: it may name a patient.
"""

import io

from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    JPEG2000TransferSyntaxes,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from medmoe.server.errors import InvalidField, UnreadableImage, UnsupportedImage
from medmoe.server.imaging.decoder_config import ImageLimits
from medmoe.server.imaging.formats.dicom.attributes import code, get, number, sequence, whole
from medmoe.server.imaging.formats.dicom.burned_in import check_annotation
from medmoe.server.imaging.formats.dicom.meta_header import with_meta_header
from medmoe.server.imaging.formats.dicom.streams.codestream import (
    FrameHeader,
    frame_header,
    has_all_tiles,
    has_coded_data,
)
from medmoe.server.imaging.formats.dicom.streams.encapsulation import END, ITEM, split_frames
from medmoe.server.imaging.formats.dicom.transfer_syntax import DEFLATED_FRAMES, LOSSY
from medmoe.server.schemas.images import BurnedIn, RenderingStep

# Values out of their VR's rules are common and often harmless; a warning about one would quote it.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_SPACINGS = (
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "ImagePlanePixelSpacing", "PixelAspectRatio",
)  # fmt: skip
_SAMPLES = {
    "MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1,
    "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "YBR_ICT": 3, "YBR_RCT": 3,
}  # fmt: skip
"""Photometric interpretations that are read, and their samples a pixel."""


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
            raise UnsupportedImage("a DICOM directory is no image, and the files it names are not opened")
        self.transfer_syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
        present = [keyword for keyword in _PIXELS if dataset.get(keyword)]
        if len(present) != 1:
            raise UnreadableImage("the DICOM file holds no pixel data: send an image, and no object that refers to one")
        self.pixel_keyword = present[0]
        self.encapsulated = self.transfer_syntax == DEFLATED_FRAMES or self.transfer_syntax.is_encapsulated
        self.height, self.width = (whole(dataset, keyword) for keyword in ("Rows", "Columns"))
        limits.check_size(self.width, self.height)
        declared = self._declared_frames()
        limits.check_frames(declared or 1)
        self._check_colour()
        self._check_bits(declared or 1)
        self.planar_configuration = self._inferred("PlanarConfiguration", 0) if self.samples > 1 else 0
        check_annotation(dataset, burned_in)
        streams = self._streams(declared)
        held = len(streams) if streams else self._held_frames()
        if held > 1 and held != declared:
            self._note("frame_count")
        self.frames = declared or held
        limits.check_frames(self.frames)
        if (frame or 0) >= self.frames:
            raise InvalidField(f"frames count from 0 and this image has {self.frames}", param="frame")
        self.frame = frame or 0
        self.stream = streams[self.frame] if streams else None
        """The frame's compressed bytes; None for uncompressed pixel data."""
        self.header = self._checked_header(self.stream) if self.stream is not None else None
        """The code stream's own header; None for uncompressed, run-length and deflated frames."""

    @property
    def frame_bytes(self) -> int:
        """Return the bytes of one uncompressed frame."""
        if self.bits_allocated == 1:
            return (self.width * self.height * self.samples + 7) // 8
        pixels = self.width * self.height * (self.bits_allocated // 8)
        # Two pixels share their chrominance where it is subsampled and uncompressed.
        subsampled = self.colour == "YBR_FULL_422" and not self.encapsulated
        return pixels * 2 if subsampled else pixels * self.samples

    @property
    def row_bytes(self) -> int:
        """Return the bytes of one uncompressed row, at least 1."""
        return max(self.frame_bytes // max(self.height, 1), 1)

    @property
    def big_endian(self) -> bool:
        return self.transfer_syntax == ExplicitVRBigEndian

    @property
    def lacks_sign(self) -> bool:
        """Return whether the file does not say if wide grey values are signed."""
        may_be = self.colour.startswith("MONOCHROME") and self.bits_stored > 8
        return may_be and get(self.dataset, "PixelRepresentation") is None

    @property
    def lossy(self) -> bool:
        """Return whether the values may have been changed by compression, now or earlier."""
        return code(self.dataset, "LossyImageCompression") == "01" or self.transfer_syntax in LOSSY

    @property
    def pixel_aspect(self) -> float:
        """Return the height of a pixel over its width; 1 where the file does not say."""
        measures = self.functional_group("PixelMeasuresSequence") or Dataset()
        properties = self.functional_group("FramePixelDataPropertiesSequence") or Dataset()
        # PixelAspectRatio comes last: it is for files that do not tell the spacing.
        for source, keyword in (
            (measures, "PixelSpacing"),
            (properties, "ImagerPixelSpacing"),
            *((self.dataset, keyword) for keyword in _SPACINGS),
        ):
            vertical, horizontal = number(source, keyword), number(source, keyword, index=1)
            if vertical and horizontal and vertical > 0 and horizontal > 0:
                ratio = vertical / horizontal
                return ratio if abs(ratio - 1) > 0.01 else 1.0
        return 1.0

    @property
    def functional_groups(self) -> tuple[Dataset, ...]:
        """Return this frame's own functional groups, then those of all frames; either may be absent."""
        per_frame = sequence(self.dataset, "PerFrameFunctionalGroupsSequence")[self.frame : self.frame + 1]
        return (*per_frame, *sequence(self.dataset, "SharedFunctionalGroupsSequence")[:1])

    def functional_group(self, keyword: str) -> Dataset | None:
        """Return the first item of a functional group, this frame's own or the one of all frames; None without it."""
        items = (item for groups in self.functional_groups for item in sequence(groups, keyword)[:1])
        return next(items, None)

    def _parse(self, data: bytes) -> Dataset:
        body, is_added = with_meta_header(data)
        if is_added:
            self.repairs.append("meta_header_added")
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
        """Return the number of frames, None where the header does not say it or says 0."""
        if get(self.dataset, "NumberOfFrames") is None:
            return None
        frames = whole(self.dataset, "NumberOfFrames")
        if frames == 0:
            self._note("frame_count")
            return None
        return frames

    def _held_frames(self) -> int:
        """Return how many whole frames uncompressed pixel data hold, if nothing is left over; otherwise 1."""
        length, size = len(self.dataset[self.pixel_keyword].value), self.frame_bytes
        if not size or length < 2 * size or length % size > 1:
            return 1
        return int(length // size)

    def _check_colour(self) -> None:
        self.colour = code(self.dataset, "PhotometricInterpretation")
        if not self.colour and get(self.dataset, "RedPaletteColorLookupTableDescriptor") is not None:
            self.colour = "PALETTE COLOR"
            self._note("attribute_inferred")
        if not self.colour:
            raise UnsupportedImage("the DICOM header lacks PhotometricInterpretation: black and white are not known")
        samples = _SAMPLES.get(self.colour)
        if samples is None:
            raise UnsupportedImage(
                "the DICOM image's photometric interpretation is not read; convert the file to RGB with gdcmconv or "
                "dcmj2pnm (DCMTK)"
            )
        if self._inferred("SamplesPerPixel", samples) != samples:
            raise UnsupportedImage("the DICOM image's photometric interpretation and samples per pixel do not agree")
        self.samples = samples

    def _check_bits(self, frames: int) -> None:
        self.bits_allocated = self._bits_allocated(frames)
        if self.bits_allocated not in (1, 8, 16, 32, 64) or (self.bits_allocated, self.samples) == (1, 3):
            raise UnsupportedImage("the DICOM image's bits a sample are not read")
        self._check_subsampling(frames)
        self.signed = self.pixel_keyword == "PixelData" and self._inferred("PixelRepresentation", 0) == 1
        if self.signed and self.samples > 1:
            self.signed = False
            self._note("sign_inferred")
        if self.pixel_keyword != "PixelData":
            self.bits_stored, self.shift = self.bits_allocated, 0
            return
        self.bits_stored = self._inferred("BitsStored", self.bits_allocated)
        if not 1 <= self.bits_stored <= self.bits_allocated:
            raise UnreadableImage("the DICOM header's BitsStored does not fit its BitsAllocated")
        high = whole(self.dataset, "HighBit", default=self.bits_stored - 1)
        self.shift = high - self.bits_stored + 1
        if self.shift:
            self._note("high_bit")
        if high >= self.bits_allocated or self.shift < 0:
            # No bits lie there: those of the usual place are meant.
            self.shift = 0

    def _bits_allocated(self, frames: int) -> int:
        """Return BitsAllocated; where it is missing, what the length of uncompressed pixel data tells."""
        if get(self.dataset, "BitsAllocated") is None and not self.encapsulated:
            length = len(self.dataset[self.pixel_keyword].value)
            for bits in (8, 16, 32, 64):
                if 0 <= length - frames * self.samples * self.width * self.height * bits // 8 <= 1:
                    self._note("attribute_inferred")
                    return bits
        return whole(self.dataset, "BitsAllocated")

    def _check_subsampling(self, frames: int) -> None:
        """Take uncompressed YBR for subsampled or not as its length says."""
        if self.encapsulated or self.bits_allocated != 8 or not self.colour.startswith("YBR_FULL"):
            return
        pixels = self.width * self.height * frames
        found = {pixels * 2: "YBR_FULL_422", pixels * 3: "YBR_FULL"}
        length = len(self.dataset[self.pixel_keyword].value)
        colour = found.get(length) or found.get(length - 1)
        if colour is not None and colour != self.colour:
            self.colour = colour
            self._note("attribute_inferred")
        if self.colour == "YBR_FULL_422" and (self.width % 2 or get(self.dataset, "PlanarConfiguration") == 1):
            raise UnsupportedImage(
                "uncompressed YBR_FULL_422 shares colours between two neighbours in a row, and this DICOM image's rows "
                "have an odd number of pixels, or its colours lie in planes; convert the file to RGB with the program "
                "that wrote it"
            )

    def _streams(self, declared: int | None) -> list[bytes]:
        if self.pixel_keyword != "PixelData":
            return []
        if self.encapsulated:
            return split_frames(self.dataset.PixelData, declared=declared)
        if self.dataset["PixelData"].is_undefined_length:
            raise UnreadableImage("the DICOM pixel data are compressed and the transfer syntax says they are not")
        return []

    def _checked_header(self, stream: bytes) -> FrameHeader | None:
        """Return the frame's own header, which decides how much a decoder allocates: it must say what the file's says.

        None for streams without one.
        """
        if self.transfer_syntax in (RLELossless, DEFLATED_FRAMES):
            return None
        found = frame_header(stream)
        if found is None or (found.width, found.height) != (self.width, self.height):
            raise UnreadableImage("the compressed frame and the DICOM header announce different sizes")
        if found.components != self.samples:
            raise UnreadableImage("the compressed frame and the DICOM header announce different samples")
        if found.obstacle is not None:
            raise UnsupportedImage(
                f"the DICOM image is compressed with {found.obstacle}, which is not read; export it as uncompressed RGB"
            )
        if self.transfer_syntax in JPEG2000TransferSyntaxes:
            if not has_coded_data(stream):
                raise UnreadableImage("the image is damaged or truncated: its JPEG 2000 frame holds no coded data")
            if not has_all_tiles(stream):
                raise UnreadableImage(
                    "the image is damaged: its JPEG 2000 frame holds fewer or more tiles than its size"
                )
        return found


def _read(data: bytes) -> Dataset:
    return dcmread(io.BytesIO(data))
