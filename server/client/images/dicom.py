"""Remove every DICOM attribute that is not needed to display the image, and metadata of frames. Needs pydicom."""

import io
import os
import threading
from typing import Any

from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from medmoe.client.errors import InvalidInput
from medmoe.client.images.fragments import frames_without_metadata
from medmoe.client.images.image import Image
from medmoe.client.images.overlay_bits import pixels_without_overlays

_IMAGE_GROUP = 0x0028
"""Size, bits, photometric interpretation, padding, rescaling, windows, look-up tables, burned-in annotation."""
_PIXEL_GROUP = 0x7FE0
_DISPLAY = (
    "SOPClassUID", "ImageType", "Modality", "PixelPresentation", "ShutterShape", "TotalPixelMatrixColumns",
    "TotalPixelMatrixRows", "SpecimenLabelInImage",
)  # fmt: skip
"""Attributes of other groups on which the display of an image depends."""
_SPACINGS = frozenset({"ImagerPixelSpacing", "NominalScannedPixelSpacing", "ImagePlanePixelSpacing"})
"""Attributes of other groups, of the image or of its frames, that tell how high and wide a pixel is."""
_FRAMES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_FREE = frozenset({"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UN", "UR", "UT"})
"""Value representations that can hold identifying text; displaying an image needs none of them."""
_UNITS = frozenset({"RescaleType", "ModalityLUTType"})
"""Texts that say whether the values are Hounsfield units, on which windows depend."""
_KNOWN_UNITS = frozenset({"OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"})
"""Defined terms (PS3.3 C.11.1.1.2); any other text is sent as US, unspecified."""
_NOBODYS_UID = UID("2.25.0")
_QUIET = threading.Lock()
"""Guards pydicom's process-wide validation switch, which two threads must not change at once."""


def pixels_only(source: Dataset | Image | str | os.PathLike[str] | bytes) -> Image:
    """Return the image in a DICOM file without patient, study, device, dates, identifiers, overlays and private tags.

    Comments and application data inside compressed frames go too. Pixel data stay as they are stored, so text that is
    burned into them stays too. Raises InvalidInput unless the source is a DICOM file with pixel data that can be
    followed.
    """
    data = None if isinstance(source, Dataset) else Image.of(source).data
    try:
        # A warning about an invalid value would quote the value.
        with _QUIET, pydicom_config.disable_value_validation():
            read = source if isinstance(source, Dataset) else dcmread(io.BytesIO(data or b""))
            syntax = _syntax(read)
            return Image(_written(_bare(read, syntax=syntax), syntax=syntax))
    except InvalidInput:
        raise
    except InvalidDicomError as error:
        raise InvalidInput("the file is no DICOM file") from error
    except Exception as error:
        # pydicom raises many kinds of exceptions for damaged files.
        raise InvalidInput(f"the DICOM file cannot be read or written ({type(error).__name__})") from error


def _bare(dataset: Dataset, *, syntax: Any) -> Dataset:
    found = _image_attributes(dataset)
    # Iterating over the dataset itself would read every element.
    pixels = [dataset[tag] for tag in _tags(dataset) if tag.group == _PIXEL_GROUP]
    if not pixels:
        raise InvalidInput("the DICOM file holds no pixel data")
    for element in pixels:
        if element.VR not in _FREE:
            found.add(_copied(element))
    if "PixelData" in found:
        data = found["PixelData"]
        data.value = pixels_without_overlays(dataset, data.value, syntax=UID(syntax))
        # Run-length frames have no room for metadata.
        if syntax != RLELossless and (data.is_undefined_length or UID(syntax).is_encapsulated):
            data.value = frames_without_metadata(data.value)
    for keyword in _DISPLAY:
        if keyword in dataset:
            found.add(_copied(dataset[keyword]))
    numbers: dict[str, str] = {}
    if paths := dataset.get("OpticalPathSequence"):
        found.OpticalPathSequence = [_optical_path(path, numbers) for path in paths]
    for keyword in _FRAMES:
        if keyword in dataset:
            groups = dataset[keyword]
            found.add(DataElement(groups.tag, "SQ", [_frame_attributes(item, numbers) for item in groups.value]))
    return found


def _optical_path(path: Dataset, numbers: dict[str, str]) -> Dataset:
    """Return the colour profile of a slide's optical path, with a number instead of its identifier, which is text."""
    found = _image_attributes(path)
    identifier = str(path.get("OpticalPathIdentifier") or "").strip(" \0\t\r\n").upper()
    if identifier:
        found.OpticalPathIdentifier = numbers.setdefault(identifier, str(len(numbers) + 1))
    return found


def _frame_attributes(groups: Dataset, numbers: dict[str, str]) -> Dataset:
    found = _image_attributes(groups)
    if paths := groups.get("OpticalPathIdentificationSequence"):
        found.OpticalPathIdentificationSequence = [_optical_path(paths[0], numbers)]
    if shutters := groups.get("FrameDisplayShutterSequence"):
        shutter = Dataset()
        if "ShutterShape" in shutters[0]:
            shutter.add(_copied(shutters[0]["ShutterShape"]))
        found.FrameDisplayShutterSequence = [shutter]
    return found


def _image_attributes(dataset: Dataset) -> Dataset:
    """Return group 0028 and spacings, without free text and identifiers, also inside its sequences."""
    found = Dataset()
    for tag in _tags(dataset):
        if tag.group != _IMAGE_GROUP and keyword_for_tag(tag) not in _SPACINGS:
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            found.add(DataElement(tag, "SQ", [_image_attributes(item) for item in element.value]))
        elif element.keyword in _UNITS:
            unit = str(element.value or "").strip(" \0\t\r\n").upper()
            found.add(DataElement(tag, "LO", unit if unit in _KNOWN_UNITS or not unit else "US"))
        elif element.VR not in _FREE:
            found.add(_copied(element))
    return found


def _tags(dataset: Dataset) -> tuple[BaseTag, ...]:
    return tuple(dataset.keys())


def _copied(element: DataElement) -> DataElement:
    """Copy an element, because writing a file corrects elements in place."""
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
