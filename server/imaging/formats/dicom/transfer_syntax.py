"""Name the transfer syntaxes that are decoded, the library that decodes each, and the tools that convert the others."""

from collections.abc import Mapping

from pydicom.config import IGNORE
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medmoe.server.errors import UnsupportedImage

DEFLATED_FRAMES = UID("1.2.840.10008.1.2.8.1")
"""Deflated Image Frame Compression: each frame is a raw deflate stream of uncompressed pixels."""
DECODERS: Mapping[str, str] = {
    ImplicitVRLittleEndian: "",
    ExplicitVRLittleEndian: "",
    ExplicitVRBigEndian: "",
    DeflatedExplicitVRLittleEndian: "",
    DEFLATED_FRAMES: "",
    RLELossless: "",
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
}
"""Accepted transfer syntaxes, each with pydicom's name of the library that decodes it, empty where none is asked."""

LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K})
"""Transfer syntaxes whose frames may have been compressed lossily."""

_JPEG_XL = ("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112")
_VIDEO = ("1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.7", "1.2.840.10008.1.2.4.20")
_OTHERS: Mapping[str, str] = {
    "1.2.840.10008.1.2.4.92": "JPEG 2000 multi-component",
    "1.2.840.10008.1.2.4.93": "JPEG 2000 multi-component",
    "1.2.840.10008.1.2.4.94": "JPIP",
    "1.2.840.10008.1.2.4.95": "JPIP",
    "1.2.840.10008.1.2.5.1": "JPIP",
}


def require_decoder(syntax: str) -> None:
    """Raise UnsupportedImage for a transfer syntax that is not decoded; its message names the way out."""
    if syntax in DECODERS:
        return
    if not syntax:
        raise UnsupportedImage("the DICOM transfer syntax is missing; convert the file with dcmconv (DCMTK)")
    if syntax in _JPEG_XL:
        raise UnsupportedImage("the DICOM transfer syntax JPEG XL is not accepted; convert it with djxl or dcm4che")
    if syntax.startswith(_VIDEO):
        raise UnsupportedImage("the DICOM transfer syntax is a video, not accepted; extract a frame with ffmpeg")
    # A private syntax may be any text: only names of the standard are repeated.
    known = UID(syntax, IGNORE)
    name = _OTHERS.get(syntax) or (known.name if known.keyword else None)
    raise UnsupportedImage(
        f"the DICOM transfer syntax {name + ' ' if name else ''}is not accepted; convert the file to uncompressed "
        "pixels with gdcmconv --raw or dcmdjpeg (DCMTK)"
    )
