"""A DICOM file with nothing in it but what shows the picture, for services that should not see whose it is.

The service puts no tag anywhere; what was not sent cannot be put anywhere at all. Needs pydicom, which is imported only
here.
"""

import io
import os
import threading
from typing import Any

from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian

from medmoe.client.errors import InvalidInput
from medmoe.client.images.image import Picture

_IMAGE_GROUP = 0x0028
"""Size, bits, photometric interpretation, padding, rescaling, windows, look-up tables, burned-in annotation."""
_PIXEL_GROUP = 0x7FE0
_KIND = ("SOPClassUID", "Modality")
_FRAMES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_FREE = frozenset({"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UN", "UR", "UT"})
"""Value representations that can name somebody; nothing of this kind is needed to show a picture."""
_NOBODYS_UID = UID("2.25.0")
_QUIET = threading.Lock()
"""What keeps pydicom from quoting values is switched for the whole process: two at once would leave it switched."""


def pixels_only(source: Dataset | Picture | str | os.PathLike[str] | bytes) -> Picture:
    """The same picture in a DICOM file without patient, study, device, dates, identifiers, overlays and private tags.

    Pixel data stay as they are stored, compressed or not: names that are burned into them stay too.
    Raises InvalidInput for what is no DICOM file with pixel data.
    """
    data = None if isinstance(source, Dataset) else Picture.of(source).data
    try:
        # What is against its representation's rules is the file's own affair, and a warning about it would quote it.
        with _QUIET, pydicom_config.disable_value_validation():
            read = source if isinstance(source, Dataset) else dcmread(io.BytesIO(data or b""))
            return Picture(_written(_bare(read), syntax=_syntax(read)))
    except InvalidInput:
        raise
    except InvalidDicomError as error:
        raise InvalidInput("the file is no DICOM file") from error
    except Exception as error:
        # pydicom raises whatever it runs into.
        raise InvalidInput(f"the DICOM file cannot be read or written ({type(error).__name__})") from error


def _bare(dataset: Dataset) -> Dataset:
    found = _image_attributes(dataset)
    # Iterating over the dataset itself would read every element, names and all.
    pixels = [tag for tag in _tags(dataset) if tag.group == _PIXEL_GROUP]
    if not pixels:
        raise InvalidInput("the DICOM file holds no pixel data")
    for tag in pixels:
        found.add(_copied(dataset[tag]))
    for keyword in _KIND:
        if keyword in dataset:
            found.add(_copied(dataset[keyword]))
    for keyword in _FRAMES:
        if keyword in dataset:
            groups = dataset[keyword]
            found.add(DataElement(groups.tag, "SQ", [_image_attributes(item) for item in groups.value]))
    return found


def _image_attributes(dataset: Dataset) -> Dataset:
    """Group 0028 without free text and identifiers, inside its sequences too."""
    found = Dataset()
    for tag in _tags(dataset):
        if tag.group != _IMAGE_GROUP:
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            found.add(DataElement(tag, "SQ", [_image_attributes(item) for item in element.value]))
        elif element.VR not in _FREE:
            found.add(_copied(element))
    return found


def _tags(dataset: Dataset) -> tuple[BaseTag, ...]:
    return tuple(dataset.keys())


def _copied(element: DataElement) -> DataElement:
    """Writing corrects elements in place, and these are the caller's."""
    copy = DataElement(element.tag, element.VR, element.value)
    copy.is_undefined_length = element.is_undefined_length
    return copy


def _syntax(dataset: Dataset) -> Any:
    return dataset.file_meta.TransferSyntaxUID if hasattr(dataset, "file_meta") else ExplicitVRLittleEndian


def _written(bare: Dataset, *, syntax: Any) -> bytes:
    kind = UID(bare.get("SOPClassUID") or _NOBODYS_UID)
    bare.SOPClassUID, bare.SOPInstanceUID = kind, _NOBODYS_UID
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = syntax
    bare.file_meta.MediaStorageSOPClassUID, bare.file_meta.MediaStorageSOPInstanceUID = kind, _NOBODYS_UID
    file = io.BytesIO()
    bare.save_as(file, enforce_file_format=True)
    return file.getvalue()
