"""Decode one frame of pixel data, whatever its storage (PS3.5 8, PS3.3 C.7.6.3)."""

from dataclasses import replace
from typing import Any

import numpy as np
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from medmoe.server.errors import UnreadableImage
from medmoe.server.imaging.formats.dicom.attributes import overlay_bits
from medmoe.server.imaging.formats.dicom.bit_geometry import (
    StoredValues,
    from_cells,
    from_stream,
    with_high_words_first,
)
from medmoe.server.imaging.formats.dicom.deflate import inflate
from medmoe.server.imaging.formats.dicom.file import DicomFile
from medmoe.server.imaging.formats.dicom.streams.run_length import run_length_bits, run_length_cells
from medmoe.server.imaging.formats.dicom.streams.stream_decoder import decode_stream, is_ybr
from medmoe.server.imaging.formats.dicom.transfer_syntax import DEFLATED_FRAMES

_FLOATS = {"FloatPixelData": np.float32, "DoubleFloatPixelData": np.float64}


def decode_frame(file: DicomFile) -> StoredValues:
    """Return the stored values of the frame to show.

    Raises UnreadableImage, UnsupportedImage, or anything that pydicom raises on damaged data.
    """
    if file.pixel_keyword in _FLOATS:
        return StoredValues(values=_floats(file), bits=file.bits_allocated, signed=True)
    stored_bits = range(file.shift, file.shift + file.bits_stored)
    overlaid = any(bit not in stored_bits for bit in overlay_bits(file.dataset))
    if file.header is not None and file.stream is not None:
        samples = decode_stream(file.stream, file.header, syntax=file.transfer_syntax, colour=file.colour)
        precision = file.header.precision
        if file.samples > 1:
            ybr = is_ybr(file.header, syntax=file.transfer_syntax, colour=file.colour)
            # Encoders round the precision up to whole bytes.
            is_rounded = 8 <= file.bits_stored < precision and samples.max() < 2**file.bits_stored
            bits = file.bits_stored if is_rounded else precision
            return StoredValues(values=samples, bits=bits, signed=False, ybr=ybr)
        return from_stream(
            samples,
            precision=precision,
            bits=file.bits_stored,
            shift=file.shift,
            signed=file.signed,
            overlaid=overlaid,
        )
    stored = from_cells(_cells(file), bits=file.bits_stored, shift=file.shift, signed=file.signed, overlaid=overlaid)
    if file.lacks_sign and stored.values.max() >> (stored.bits - 1):
        raise UnreadableImage(
            "the DICOM header lacks PixelRepresentation, and the image differs with the sign of its values: add it (0 "
            "unsigned, 1 signed)"
        )
    return replace(stored, ybr=file.colour.startswith("YBR_FULL"))


def _cells(file: DicomFile) -> np.ndarray:
    """Return unsigned cells of all bits allocated, [rows, columns] or [rows, columns, 3]."""
    if file.stream is None:
        return _native(file)
    if file.transfer_syntax == DEFLATED_FRAMES:
        return _unpacked(file, _inflated(file), ExplicitVRLittleEndian)
    if file.bits_allocated == 1:
        return run_length_bits(file.stream, rows=file.height, columns=file.width)
    cells = run_length_cells(
        file.stream, rows=file.height, columns=file.width, samples=file.samples, cell_bytes=file.bits_allocated // 8
    )
    return cells[0] if file.samples == 1 else np.ascontiguousarray(np.moveaxis(cells, 0, -1))


def _native(file: DicomFile) -> np.ndarray:
    value: bytes = file.dataset.PixelData
    syntax = ExplicitVRBigEndian if file.big_endian else ExplicitVRLittleEndian
    if file.bits_allocated == 1:
        return _bits(file, value)
    size = file.frame_bytes
    found = _frame(file, value, size)
    # A big-endian word of two 8-bit samples may straddle two frames: pydicom takes the whole value.
    if file.big_endian and size % 2:
        return _unpacked(file, value, syntax, index=file.frame, frames=file.frames)
    cells = _unpacked(file, found, syntax)
    if file.big_endian and file.bits_allocated == 32:
        return with_high_words_first(cells, signed=file.signed)
    return cells


def _bits(file: DicomFile, value: bytes) -> np.ndarray:
    """Return uint8 of 0 and 1 from frames of 1 bit a pixel, the first pixel in a byte's lowest bit (PS3.5 8.1.1)."""
    pixels = file.width * file.height
    if len(value) * 8 < file.frames * pixels:
        raise _too_short(file, len(value) * 8 // pixels)
    _check_surplus(file, value, taken=file.frames * file.frame_bytes)
    bytes_ = np.frombuffer(value, np.uint8)
    if file.big_endian and file.dataset["PixelData"].VR == "OW":
        bytes_ = bytes_[: len(bytes_) // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
    # Frames follow one another without a gap. Some writers begin each at a byte, which takes more bytes.
    whole, gapless = file.frames * file.frame_bytes, (file.frames * pixels + 15) // 16 * 2
    first = file.frame * (8 * file.frame_bytes if gapless < whole <= len(value) <= whole + 1 else pixels)
    bits = np.unpackbits(bytes_[first // 8 : (first + pixels + 7) // 8], bitorder="little")[first % 8 :]
    return bits[:pixels].reshape(file.height, file.width)


def _frame(file: DicomFile, value: bytes, size: int) -> bytes:
    """Return the frame to show of uncompressed ones of `size` bytes. Raises UnreadableImage where some are missing."""
    if len(value) < size * file.frames:
        raise _too_short(file, len(value) // size)
    _check_surplus(file, value, taken=size * file.frames)
    return value[file.frame * size : (file.frame + 1) * size]


def _check_surplus(file: DicomFile, value: bytes, *, taken: int) -> None:
    """Raise UnreadableImage where a row or more follows the `taken` bytes; whole frames and padding may follow."""
    surplus = value[taken:]
    padding = not surplus.strip(surplus[-1:])
    if len(surplus) >= file.row_bytes and not padding and len(surplus) % file.frame_bytes > 1:
        raise UnreadableImage(
            "the image is damaged: the pixel data hold more rows or columns than the DICOM header announces; export it "
            "anew"
        )


def _too_short(file: DicomFile, held: int) -> UnreadableImage:
    if file.frames == 1:
        return UnreadableImage("the image is damaged or truncated: pixel data end before the last row")
    return UnreadableImage(
        f"the DICOM header declares {file.frames} frames and the file holds {held}: it is truncated, or "
        "NumberOfFrames is wrong"
    )


def _inflated(file: DicomFile) -> bytes:
    assert file.stream is not None
    found, _ = inflate(file.stream, file.frame_bytes + file.row_bytes)
    if len(found) < file.frame_bytes:
        raise UnreadableImage("the image is damaged or truncated: a deflated frame is too short")
    _check_surplus(file, found, taken=file.frame_bytes)
    return found[: file.frame_bytes]


def _floats(file: DicomFile) -> np.ndarray:
    dtype = np.dtype(_FLOATS[file.pixel_keyword])
    found = _frame(file, file.dataset[file.pixel_keyword].value, file.width * file.height * dtype.itemsize)
    values = np.frombuffer(found, dtype.newbyteorder(">" if file.big_endian else "<"))
    return values.reshape(file.height, file.width).astype(dtype)


def _unpacked(file: DicomFile, value: bytes, syntax: UID, *, index: int = 0, frames: int = 1) -> np.ndarray:
    """Unpack with pydicom, which is told nothing but checked attributes."""
    # `rendering` converts colours, once they have 8 bits. Compressed frames hold three samples for each pixel.
    subsampled = file.colour == "YBR_FULL_422" and not file.encapsulated
    # Bytes in big-endian words are swapped, and pydicom swaps them back.
    words = file.bits_allocated > 8 or (syntax == ExplicitVRBigEndian and file.dataset["PixelData"].VR == "OW")
    options: dict[str, Any] = {
        "rows": file.height,
        "columns": file.width,
        "samples_per_pixel": file.samples,
        "photometric_interpretation": file.colour if subsampled else "RGB" if file.samples > 1 else "MONOCHROME2",
        "bits_allocated": file.bits_allocated,
        "bits_stored": file.bits_allocated,
        "pixel_representation": 0,
        "planar_configuration": file.planar_configuration,
        "number_of_frames": frames,
        "pixel_keyword": "PixelData",
        "pixel_vr": "OW" if words else "OB",
        "as_rgb": False,
    }
    stored, _ = get_decoder(syntax).as_array(value, index=index, **options)
    return stored
