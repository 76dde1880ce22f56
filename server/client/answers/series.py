"""Define the answers of `/v1/series`; /docs explains each field."""

from typing import Literal

from medmoe.client.answers.base import Message
from medmoe.client.answers.classify import ByMode
from medmoe.client.answers.vqa import StoredReport, Timings, VqaAnswer


class SeriesDescription(Message):
    """What the service made of the images."""

    slice_count: int
    sampled: tuple[int, ...]
    """Indices of the slices that are asked about, in the order of the series."""
    ordered_by: str
    """`position`, or `instance_number` where no slice has a position."""
    spacing: float | None
    """Usual distance of neighbouring slices in millimetres."""
    irregular: bool
    window: str | None
    """Window of all slices; None where each is shown as its file says."""
    window_source: str
    ignored_files: int


class SlicePlace(Message):
    """A slice that was asked about."""

    index: int
    """In the order of the series, from 0."""
    position: float | None
    """Millimetres along the normal from the first slice."""
    instance: str
    """SOP Instance UID."""
    file: int
    """Index of the file among those sent."""
    frame: int | None
    uniform: bool
    """Whether the slice comes out as one shade, so that it was not asked about."""


class AnsweredSlice(SlicePlace):
    answer: VqaAnswer | None


class ClassifiedSlice(SlicePlace):
    classification: ByMode | None


class _SeriesResult(Message):
    id: str
    model: str
    abstained: bool
    calibrated: bool
    """False: no calibration was fitted to results of series."""
    best_slice: int
    """Index of the slice that decides."""
    series: SeriesDescription
    timings: Timings
    report: str | None = None
    """The DICOM structured report as base64, if it was asked for."""
    stored: StoredReport | None = None


class SeriesAnswer(_SeriesResult):
    """Answer to a question."""

    kind: Literal["answer"] = "answer"
    answer: str
    rule: str
    """Rule that chose the answer among those of the slices."""
    agreement: float
    """Share of the slices with this answer."""
    slices: tuple[AnsweredSlice, ...]


class LabelAggregate(Message):
    label: str
    probability: float
    """Probability in the series, by the rule."""
    best_slice: int
    """Index of the slice in which the label is most probable."""


class SeriesClassification(_SeriesResult):
    """Classification with labels."""

    kind: Literal["classification"] = "classification"
    labels: tuple[str, ...]
    """Most probable label, or those that are present in mode multi_label."""
    rule: str
    probabilities: tuple[LabelAggregate, ...]
    """One entry for each label, in the request's order."""
    slices: tuple[ClassifiedSlice, ...]


class SeriesStarted(Message):
    """First event of a stream."""

    series: SeriesDescription


class SliceDone(Message):
    """Event of a stream for each slice."""

    done: int
    """Slices so far."""
    slice: AnsweredSlice | ClassifiedSlice


SeriesEvent = SeriesStarted | SliceDone | SeriesAnswer | SeriesClassification
"""The series, each slice when it is answered, and the result."""
