"""Define the content of a report; nothing in it comes from the file."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ReportFormat = Literal["dicom", "fhir"]


class SliceContent(BaseModel):
    """A slice of a series that was asked about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    """In the order of the series, from 0."""
    instance: str
    """SOP Instance UID."""
    sop_class: str
    """SOP Class UID."""
    frame: int | None
    """Frame of a multi-frame file, from 0."""
    findings: tuple[str, ...]
    certainty: float | None
    abstained: bool
    uniform: bool
    """The slice comes out as one shade, so it was not asked about."""


class SeriesContent(BaseModel):
    """How one result was made of those of slices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    slice_count: int
    """Slices of the series."""
    best_slice: int
    """Index of the slice that decides."""
    slices: tuple[SliceContent, ...] = Field(min_length=1)


class ReportContent(BaseModel):
    """An answer and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made: str
    """Time of the answer, ISO 8601 with a time zone."""
    software: str
    """Version of the service."""
    model: str
    weights_sha256: str | None
    adapter_sha256: str | None
    frame: int
    """Frame of the file, from 0."""
    series: SeriesContent | None = None
    """None for an answer about one image; otherwise the file is that of the best slice."""
    question: str
    labels: tuple[str, ...] = ()
    """The labels to choose from, none for a free answer."""
    findings: tuple[str, ...]
    """The answer, or the labels that were found."""
    certainty: float | None
    """Calibrated probability that the finding is right; None where nothing was calibrated."""
    abstained: bool
    parameters: tuple[str, ...]
    """What else decided the answer, as name=value."""
