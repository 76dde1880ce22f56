"""Define how a request names an image of a DICOMweb source, and the responses that list what a source holds."""

from typing import Annotated

from pydantic import Field, StringConstraints

from medmoe.server.schemas.base import ApiModel

SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
DicomUID = Annotated[str, StringConstraints(max_length=64, pattern=r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+$")]
"""A unique identifier as PS3.5 section 9.1 defines it: nothing in it needs encoding in a URL."""
MAX_LISTED = 1000
"""Most studies, series or instances in one response."""


class InstanceReference(ApiModel):
    """An image in a DICOMweb source of the deployment (MEDMOE_DICOMWEB_SOURCES)."""

    source: SourceName
    """As `GET /v1/sources` names it."""
    study: DicomUID
    """Study Instance UID."""
    series: DicomUID
    """Series Instance UID."""
    instance: DicomUID
    """SOP Instance UID."""


SentImage = str | bytes | InstanceReference
"""The image of a request: base64 text or a URL, the bytes of a file, or a reference to a source."""


class SourceInfo(ApiModel):
    name: str
    store: bool
    """Whether reports may be stored there."""


class SourceList(ApiModel):
    data: tuple[SourceInfo, ...]


class StudyInfo(ApiModel):
    """A study without anything that names its patient; null for what the source does not tell."""

    study: DicomUID
    date: str | None
    """YYYYMMDD."""
    time: str | None
    """HHMMSS, with or without a fraction."""
    description: str | None
    modalities: tuple[str, ...]
    series_count: int | None
    instance_count: int | None


class StudyList(ApiModel):
    data: tuple[StudyInfo, ...]


class SeriesInfo(ApiModel):
    series: DicomUID
    modality: str | None
    number: int | None
    description: str | None
    instance_count: int | None


class SeriesList(ApiModel):
    data: tuple[SeriesInfo, ...]


class InstanceInfo(ApiModel):
    instance: DicomUID
    sop_class: DicomUID | None
    number: int | None
    rows: int | None
    """Null for objects without an image."""
    columns: int | None
    frames: int | None
    """Null where the source does not tell, which most often means 1."""


class InstanceList(ApiModel):
    data: tuple[InstanceInfo, ...]


ListLimit = Annotated[int, Field(ge=1, le=MAX_LISTED)]
