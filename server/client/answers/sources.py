"""Define the answers of `/v1/sources`; /docs explains each field."""

from medmoe.client.answers.base import Message


class SourceInfo(Message):
    name: str
    store: bool
    """Whether reports may be stored there."""


class SourceList(Message):
    data: tuple[SourceInfo, ...]


class StudyInfo(Message):
    """A study, without anything that names its patient."""

    study: str
    date: str | None
    time: str | None
    description: str | None
    modalities: tuple[str, ...]
    series_count: int | None
    instance_count: int | None


class StudyList(Message):
    data: tuple[StudyInfo, ...]


class SeriesInfo(Message):
    series: str
    modality: str | None
    number: int | None
    description: str | None
    instance_count: int | None


class SeriesList(Message):
    data: tuple[SeriesInfo, ...]


class InstanceInfo(Message):
    instance: str
    sop_class: str | None
    number: int | None
    rows: int | None
    """None for objects without an image."""
    columns: int | None
    frames: int | None


class InstanceList(Message):
    data: tuple[InstanceInfo, ...]
