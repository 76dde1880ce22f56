"""Decode the code stream of one frame: JPEG, JPEG-LS, JPEG 2000."""

from collections.abc import Callable
from typing import Any

import gdcm
import numpy as np
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from medmoe.model.image_formats.jpeg.file import JpegFile, with_other_ends, with_probe
from medmoe.model.image_formats.no_data import has_lost_bytes
from medmoe.server.errors import UnreadableImage, UnsupportedImage
from medmoe.server.imaging.formats.dicom.streams.codestream import FrameHeader, jpeg_2000_with_other_ends
from medmoe.server.imaging.formats.dicom.transfer_syntax import DECODERS

_RGB, _YBR = "RGB", "YBR_FULL"
_LOSSY_JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit)
_LOSSLESS_JPEG = (JPEGLossless, JPEGLosslessSV1)
_JPEG_LS = (JPEGLSLossless, JPEGLSNearLossless)
_PADDED_END = b"\0\xff\xd9"
_DECODED_AGAIN = 2**22
"""Samples of the largest JPEG 2000 frame that is decoded twice, to find that its size is false."""


def decode_stream(stream: bytes, header: FrameHeader, *, syntax: UID, colour: str) -> np.ndarray:
    """Return the samples of a code stream, [rows, columns] or [rows, columns, 3] in RGB or YCbCr (`is_ybr`).

    `colour` is the DICOM header's photometric interpretation. Samples have the sign of the stream. Raises
    UnreadableImage, UnsupportedImage, or anything that a library raises on damaged data.
    """
    if syntax in JPEG2000TransferSyntaxes:
        if has_lost_bytes(stream, pixels=header.width * header.height):
            raise _missing()
    elif not JpegFile(stream).is_whole():
        raise _missing()
    if syntax in _LOSSY_JPEG and header.precision == 8:
        return _jpeg(stream, colour, header)
    if syntax in _LOSSY_JPEG:
        return _probed(lambda data: _extended_jpeg(data, colour, header), stream)
    if syntax in _JPEG_LS:
        return _jpeg_ls(stream, header, syntax)

    def decode(data: bytes) -> np.ndarray:
        return _pydicom(data, header, syntax)

    if syntax in _LOSSLESS_JPEG:
        return _probed(decode, stream)
    samples = decode(stream)
    others = list(jpeg_2000_with_other_ends(stream)) if samples.size <= _DECODED_AGAIN else []
    if others and all(_is_same(samples, decode, other) for other in others):
        raise UnreadableImage("the image is damaged: its code stream announces another size than its data have")
    return samples


def is_ybr(header: FrameHeader, *, syntax: UID, colour: str) -> bool:
    """Return whether `decode_stream` leaves YCbCr as it is: other samples than those of a lossy JPEG."""
    return syntax not in _LOSSY_JPEG and not header.is_rgb and (header.is_marked or colour.startswith(_YBR))


def _missing() -> UnreadableImage:
    return UnreadableImage("the image is damaged or truncated: coded data of its frame are missing")


def _excess() -> UnreadableImage:
    return UnreadableImage("the image is damaged: its frame holds more rows or columns than its header announces")


def _probed(decode: Callable[[bytes], np.ndarray], stream: bytes) -> np.ndarray:
    """Return the samples, which must depend on the end of the coded data and not on what follows.

    Raises UnreadableImage.
    """
    samples = decode(stream)
    if _is_same(samples, decode, with_probe(stream)) is False:
        raise _missing()
    if all(_is_same(samples, decode, other) for other in with_other_ends(stream)):
        raise _excess()
    return samples


def _is_same(samples: np.ndarray, decode: Callable[[bytes], np.ndarray], stream: bytes) -> bool | None:
    """Return whether another stream has the same samples, None where the library refuses it."""
    try:
        return np.array_equal(samples, decode(stream))
    except Exception:  # Libraries raise anything on damaged data.
        return None


def _jpeg_ls(stream: bytes, header: FrameHeader, syntax: UID) -> np.ndarray:
    try:
        return _pydicom(stream, header, syntax)
    except RuntimeError:
        # Early encoders fill up with a zero byte before the end marker, which CharLS takes for damage.
        body, padded, rest = stream.rpartition(_PADDED_END)
        if not padded:
            raise
        return _pydicom(body + _PADDED_END[1:] + rest, header, syntax)


def _jpeg(stream: bytes, colour: str, header: FrameHeader) -> np.ndarray:
    file = JpegFile(stream)
    with Image.open(file, formats=["JPEG"]) as image:
        unmarked = header.components == 3 and colour == _RGB and not header.is_marked
        if unmarked:
            # libjpeg takes unmarked components for YCbCr: asked for these, it changes nothing.
            image.draft("YCbCr", image.size)
        samples = np.asarray(image if unmarked or header.components != 3 else image.convert("RGB"))
    if file.has_excess():
        raise _excess()
    return samples


def _extended_jpeg(stream: bytes, colour: str, header: FrameHeader) -> np.ndarray:
    """Decode a JPEG of 12 bits with GDCM, which pydicom asks for grey ones of 8 bits alone."""
    if header.components not in (1, 3):
        raise UnsupportedImage(
            "JPEG of 12 bits is read as grey or three colours; convert the file with dcmdjpeg (DCMTK)"
        )
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    # GDCM upsamples the components, and converts no colours of 12 bits.
    kinds = gdcm.PhotometricInterpretation
    interpretation = kinds.RGB if header.components == 3 else kinds.MONOCHROME2
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((header.width, header.height, 1))
    image.SetPhotometricInterpretation(kinds(interpretation))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    cell = header.cell_bits
    image.SetPixelFormat(gdcm.PixelFormat(header.components, cell, header.precision, header.precision - 1, 0))
    image.SetDataElement(element)
    buffer = image.GetBuffer()
    if buffer is None:
        raise UnreadableImage()
    samples = np.frombuffer(buffer.encode("utf-8", "surrogateescape"), f"<u{cell // 8}")
    if header.components == 1:
        return samples.reshape(header.height, header.width)
    colours = samples.reshape(header.height, header.width, 3)
    is_rgb = header.is_rgb or (colour == _RGB and not header.is_marked)
    return colours if is_rgb else _rgb(colours, bits=header.precision)


def _rgb(colours: np.ndarray, *, bits: int) -> np.ndarray:
    """Return YCbCr samples [rows, columns, 3] of `bits` as RGB (PS3.3 C.7.6.3.1.2, YBR_FULL)."""
    light, blue, red = (colours[..., index].astype(np.float32) for index in range(3))
    middle = np.float32(2 ** (bits - 1))
    blue, red = blue - middle, red - middle
    found = np.stack([light + 1.402 * red, light - 0.344136 * blue - 0.714136 * red, light + 1.772 * blue], axis=-1)
    rgb: np.ndarray = np.clip(np.rint(found), 0, 2**bits - 1).astype(colours.dtype)
    return rgb


def _pydicom(stream: bytes, header: FrameHeader, syntax: UID) -> np.ndarray:
    options: dict[str, Any] = {
        "rows": header.height,
        "columns": header.width,
        "samples_per_pixel": header.components,
        "photometric_interpretation": _RGB if header.components == 3 else "MONOCHROME2",
        "bits_allocated": header.cell_bits,
        "bits_stored": header.precision,
        "pixel_representation": int(header.signed),
        # Code streams interleave colours, whatever the DICOM header says of planes (PS3.5 8.2).
        "planar_configuration": 0,
        "number_of_frames": 1,
        "as_rgb": False,
    }
    plugin = DECODERS[syntax]
    samples, _ = get_decoder(syntax).as_array(encapsulate([stream]), index=0, decoding_plugin=plugin, **options)
    return samples
