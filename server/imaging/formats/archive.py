"""Unpack the DICOM files of a ZIP archive in memory; of a name in it only the suffix is used."""

import io
import zipfile
import zlib
from pathlib import PurePosixPath

from medmoe.model.image_formats.signature import DICOM_SUFFIXES
from medmoe.server.errors import UnsupportedImage
from medmoe.server.imaging.formats.sniff import sniff
from medmoe.server.imaging.series.errors import InvalidArchive, SeriesTooLarge

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_OTHERS = 4
"""Entries of the archive for each file that a series may have: viewers and directories come along with exports."""


def is_archive(data: bytes) -> bool:
    """Return whether the file is a ZIP archive."""
    return data.startswith(_MAGIC)


def unpack(data: bytes, *, max_files: int, max_bytes: int) -> list[bytes]:
    """Return the DICOM files in the archive's order, other files being left out; a file that is no archive as it is.

    Raises InvalidArchive, also where a file has the suffix of a DICOM file and is none, since a slice may be missing;
    SeriesTooLarge for more than `max_files` DICOM files, or `max_bytes` of all files unpacked.
    """
    if not data:
        raise InvalidArchive("the file is empty: it has 0 bytes")
    if not is_archive(data):
        return [data]
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > _OTHERS * max_files:
                raise SeriesTooLarge.over_files(max_files)
            return _files(archive, entries, max_files=max_files, max_bytes=max_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        # NotImplementedError: a version of the format, or a feature, that Python does not read.
        raise InvalidArchive() from error


def _files(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], *, max_files: int, max_bytes: int) -> list[bytes]:
    files: list[bytes] = []
    left = max_bytes
    for number, entry in enumerate(entries, start=1):
        if entry.flag_bits & _ENCRYPTED:
            raise InvalidArchive("the archive is encrypted; send it without a password")
        if entry.compress_type not in _METHODS:
            raise InvalidArchive("the archive is compressed by another method than deflate; pack it anew")
        with archive.open(entry) as file:
            # The size that the archive declares may be a lie.
            content = file.read(left + 1)
        left -= len(content)
        if left < 0:
            raise SeriesTooLarge.over_bytes(max_bytes)
        if _is_dicom(content):
            files.append(content)
        elif _is_called_dicom(entry.filename):
            raise InvalidArchive(f"entry {number} of the archive has the suffix of a DICOM file and is none")
        if len(files) > max_files:
            raise SeriesTooLarge.over_files(max_files)
    if not files:
        raise InvalidArchive("the archive holds no DICOM file")
    return files


def _is_dicom(content: bytes) -> bool:
    try:
        return sniff(content) == "DICOM"
    except UnsupportedImage:
        return False


def _is_called_dicom(name: str) -> bool:
    """Check the suffix; a Mac packs a file of its own, `._NAME`, beside each file."""
    path = PurePosixPath(name)
    return path.suffix.lower() in DICOM_SUFFIXES and not path.name.startswith("._")
