"""Define the responses that list what a DICOMweb source holds."""

from typing import Annotated

from pydantic import Field

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.inference import DicomUID

MAX_LISTED = 1000
"""Most studies, series or instances in one response."""


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
