"""Define what a report says; nothing in it comes from the file."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

ReportFormat = Literal["dicom", "fhir"]


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
    """Of the file, from 0."""
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
