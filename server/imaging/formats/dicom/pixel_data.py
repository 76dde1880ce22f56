"""Decode one frame of pixel data: bit geometry, code streams, whole frames (PS3.5 8, PS3.3 C.7.6.3)."""

import zlib

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless

from medmoe.server.errors import UnreadableImage, UnsupportedImage
from medmoe.server.imaging.formats.dicom.file import DicomFile
from medmoe.server.imaging.formats.dicom.transfer_syntax import DEFLATED_FRAMES
from medmoe.server.imaging.formats.jpeg import is_whole

_FLOATS = {"FloatPixelData": np.float32, "DoubleFloatPixelData": np.float64}


def decode_frame(file: DicomFile) -> np.ndarray:
    """Return the stored values, [rows, columns] or [rows, columns, 3] in RGB.

    Raises UnreadableImage, UnsupportedImage, or anything that pydicom raises on damaged data.
    """
    if file.pixel_keyword in _FLOATS:
        return _floats(file)
    if file.stream is None:
        return _native(file)
    if file.transfer_syntax == DEFLATED_FRAMES:
        return _decoded(file, _inflated(file), ExplicitVRLittleEndian)
    if file.transfer_syntax == RLELossless:
        if file.bits_allocated == 1:
            raise UnsupportedImage("run-length frames of 1 bit are not read; convert the file with gdcmconv --raw")
        return _decoded(file, file.stream, RLELossless, plugin=file.decoder)
    if file.decoder == "pillow" and not is_whole(file.stream):
        raise UnreadableImage("the picture is damaged or truncated: scan data of its JPEG frame are missing")
    return _decoded(file, file.stream, file.transfer_syntax, plugin=file.decoder)


def _native(file: DicomFile) -> np.ndarray:
    value: bytes = file.dataset.PixelData
    big_endian = file.transfer_syntax == ExplicitVRBigEndian
    syntax = ExplicitVRBigEndian if big_endian else ExplicitVRLittleEndian
    if file.bits_allocated == 1:
        if len(value) * 8 < file.frames * file.width * file.height * file.samples:
            raise _too_short(file, len(value) * 8 // (file.width * file.height * file.samples))
        return _decoded(file, value, syntax, index=file.frame, frames=file.frames)
    size = file.frame_bytes
    if len(value) < size * file.frames:
        raise _too_short(file, len(value) // size)
    # A big-endian word of two 8-bit samples may straddle two frames: pydicom takes the whole value.
    if big_endian and size % 2:
        return _decoded(file, value, syntax, index=file.frame, frames=file.frames)
    return _decoded(file, value[file.frame * size : (file.frame + 1) * size], syntax)


def _too_short(file: DicomFile, held: int) -> UnreadableImage:
    if file.frames == 1:
        return UnreadableImage("the picture is damaged or truncated: pixel data end before the last row")
    return UnreadableImage(
        f"the DICOM header declares {file.frames} frames and the file holds {held}: it is truncated, or "
        "NumberOfFrames is wrong"
    )


def _inflated(file: DicomFile) -> bytes:
    assert file.stream is not None
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    found = inflater.decompress(file.stream, file.frame_bytes)
    if len(found) < file.frame_bytes:
        raise UnreadableImage("the picture is damaged or truncated: a deflated frame is too short")
    return found


def _floats(file: DicomFile) -> np.ndarray:
    dtype = np.dtype(_FLOATS[file.pixel_keyword])
    value: bytes = file.dataset[file.pixel_keyword].value
    stored = dtype.newbyteorder(">" if file.big_endian else "<")
    size = file.width * file.height * dtype.itemsize
    if len(value) < size * file.frames:
        raise _too_short(file, len(value) // size)
    values = np.frombuffer(value, stored, count=file.width * file.height, offset=file.frame * size)
    return values.reshape(file.height, file.width).astype(dtype)


def _decoded(
    file: DicomFile, value: bytes, syntax: str, *, plugin: str = "", index: int = 0, frames: int = 1
) -> np.ndarray:
    """Decode with pydicom from a dataset that holds nothing but checked attributes."""
    single = Dataset()
    single.file_meta = FileMetaDataset()
    single.file_meta.TransferSyntaxUID = UID(syntax)
    single.Rows, single.Columns, single.SamplesPerPixel = file.height, file.width, file.samples
    single.PhotometricInterpretation = file.colour
    single.BitsAllocated = file.bits_allocated
    shifted = file.shift > 0 and not _is_code_stream(file)
    single.BitsStored = file.bits_allocated if shifted else file.bits_stored
    single.HighBit = single.BitsStored - 1
    single.PixelRepresentation = 0 if shifted else int(file.signed)
    if file.samples > 1:
        single.PlanarConfiguration = file.planar_configuration
    single.NumberOfFrames = frames
    single.PixelData = encapsulate([value]) if plugin else value
    single["PixelData"].VR = "OB" if plugin or file.bits_allocated <= 8 else "OW"
    single["PixelData"].is_undefined_length = bool(plugin)
    decoder = get_decoder(syntax)
    stored, _ = decoder.as_array(single, index=index, decoding_plugin=plugin)
    return _shift(stored, file) if shifted else stored


def _is_code_stream(file: DicomFile) -> bool:
    """Return whether a codec delivers values, to which the high bit does not apply."""
    return file.stream is not None and file.transfer_syntax not in (RLELossless, DEFLATED_FRAMES)


def _shift(stored: np.ndarray, file: DicomFile) -> np.ndarray:
    """Move stored bits that end at another bit than `bits_stored` - 1 to the lowest bits."""
    values = (stored >> file.shift) & (2**file.bits_stored - 1)
    if not file.signed:
        return np.asarray(values)
    wide = values.astype(np.int64)
    wide -= (wide >= 2 ** (file.bits_stored - 1)) * 2**file.bits_stored
    return np.asarray(wide.astype(np.dtype(f"i{stored.dtype.itemsize}")))
