"""Read the UIDs of a DICOM file, without its pixel data."""

import io

from pydantic import ValidationError
from pydicom import dcmread

from medmoe.server.errors import UnreadableImage
from medmoe.server.imaging.formats.dicom.attributes import get
from medmoe.server.imaging.formats.dicom.meta_header import with_meta_header
from medmoe.server.imaging.image import InstanceUIDs

_KEYWORDS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}


def instance_uids(data: bytes) -> InstanceUIDs:
    """Return the UIDs of a file.

    Raises UnreadableImage where one is missing or invalid, or anything that pydicom raises.
    """
    body, _ = with_meta_header(data)
    dataset = dcmread(io.BytesIO(body), stop_before_pixels=True, specific_tags=list(_KEYWORDS.values()))
    try:
        return InstanceUIDs.model_validate(
            {name: str(get(dataset, keyword) or "").strip(" \0") for name, keyword in _KEYWORDS.items()}
        )
    except ValidationError as error:
        raise UnreadableImage("the DICOM file lacks a valid study, series or instance UID") from error
