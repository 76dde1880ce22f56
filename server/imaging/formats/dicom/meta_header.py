"""Complete the preamble and meta header of a DICOM file, and inflate its data set (PS3.10 7.1)."""

import io

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medmoe.model.image_formats.signature import has_preamble
from medmoe.server.errors import ImageTooLarge
from medmoe.server.imaging.formats.dicom.attributes import uid
from medmoe.server.imaging.formats.dicom.deflate import inflate
from medmoe.server.imaging.formats.dicom.transfer_syntax import require_decoder

_LARGEST_INFLATED = 256 * 2**20
"""Bytes of a deflated file once inflated: as much as the largest uncompressed frames need."""
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
"""What an item begins with, in little and in big endian."""
_MOST_ITEMS = 100_000
"""Items of sequences and fragments of frames: 50 for each of 2,000 frames. pydicom reads 40,000 in a second."""


def with_meta_header(data: bytes) -> tuple[bytes, bool]:
    """Return the file with preamble and meta header, inflated, and whether these had to be added.

    Raises UnsupportedImage for a transfer syntax that is not decoded, ImageTooLarge.
    """
    body, is_added = _completed(data)
    if any(body.count(item) > _MOST_ITEMS for item in _ITEMS):
        raise ImageTooLarge(f"the DICOM file has over {_MOST_ITEMS} items in its sequences and fragments")
    return body, is_added


def _completed(data: bytes) -> tuple[bytes, bool]:
    is_added = not has_preamble(data)
    if is_added:
        data = bytes(128) + b"DICM" + data
    meta = _meta_bytes(data)
    rest = 132 + len(meta)
    start = dcmread(io.BytesIO(data[:rest]), specific_tags=[]).file_meta if meta else FileMetaDataset()
    syntax = uid(start, "TransferSyntaxUID")
    if not syntax:
        syntax = _guessed_syntax(data[rest : rest + 8])
        is_added = True
    require_decoder(syntax)
    if start.get("TransferSyntaxUID") == syntax and syntax != DeflatedExplicitVRLittleEndian:
        return data, is_added
    body = data[rest:]
    if syntax == DeflatedExplicitVRLittleEndian:
        # pydicom would inflate without a limit.
        body, larger = inflate(body, _LARGEST_INFLATED)
        if larger:
            raise ImageTooLarge(f"the deflated DICOM file is over {_LARGEST_INFLATED} bytes once inflated")
        syntax = str(ExplicitVRLittleEndian)
    start.TransferSyntaxUID = UID(syntax)
    written = DicomBytesIO()
    write_file_meta_info(written, start, enforce_standard=False)
    return data[:132] + written.getvalue() + body, is_added


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
