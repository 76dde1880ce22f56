"""Define the request and the responses of `POST /v1/series`.

The models hold the limits of every deployment; medmoe.server.inference.series checks those that settings choose.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from medmoe.server.schemas import voi_window
from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.classify import AnyClassifyResponse, Labels
from medmoe.server.schemas.images import readable_window
from medmoe.server.schemas.inference import (
    Label,
    Modality,
    ModelName,
    Question,
    SeriesReference,
    SourceName,
    StoredReport,
    Timings,
)
from medmoe.server.schemas.vqa import VQAResponse

SeriesText = Annotated[
    str,
    Field(description="A ZIP archive of the DICOM files, or one multi-frame DICOM file, as base64 or a data URL."),
]
OrderedBy = Literal["position", "instance_number"]
AnswerRule = Literal["most_confident", "majority"]
LabelRule = Literal["mean", "max"]
FIELD_NAMES = {"image": "series"}
"""What the routes of series call the fields that errors name."""
MAX_SLICES = 256
"""No deployment can allow more slices of a series to be asked about."""


class SlicesFields(ApiModel):
    """Which slices of a series are looked at, and how they are shown."""

    slices: int | None = Field(default=None, ge=1, le=MAX_SLICES)
    """Look at so many slices, evenly spread over the series; absent: the deployment's number."""
    window: str | None = Field(
        default=None, max_length=voi_window.MAX_LENGTH, examples=["lung", "40/400", "lung,mediastinum,bone"]
    )
    """One window for all slices, as in `/v1/vqa`; absent: that of the middle slice."""
    allow_irregular: bool = False
    """Take a series whose slices are unevenly spaced or displaced against one another (tilted gantry). Otherwise it is
    refused: `missing_slices`, `tilted_gantry`."""
    timeout_ms: int | None = Field(default=None, ge=1)
    """Give up after this long, all slices and the queue included; the service has its own limit."""

    @field_validator("window")
    @classmethod
    def _readable(cls, window: str | None) -> str | None:
        return readable_window(window)


class SeriesFields(SlicesFields):
    """The fields of `POST /v1/series` besides the images: a question, or labels."""

    question: Question | None = None
    """Asked about each slice; with `labels`, instead of the checkpoint's own classification question."""
    labels: Labels | None = None
    """Classify each slice with these labels, as `/v1/classify` does."""
    mode: Literal["likelihood", "choice", "multi_label"] = "likelihood"
    """With `labels`: as in `/v1/classify`."""
    contextual_calibration: bool = False
    """With `labels`: as in `/v1/classify`."""
    aggregate: Literal["most_confident", "majority", "mean", "max"] | None = None
    """How one result is made of those of the slices. For a question most_confident (the default) takes the answer with
    the highest confidence, majority the most frequent answer. For labels mean (the default) averages each label's
    probability, max (the default of mode multi_label) takes its largest. Slices that abstain count only where all
    do; in mode multi_label that holds for each label on its own."""
    finding: Label | None = Field(default=None, examples=["lesion"])
    """Label of `labels` that a series has as soon as one slice shows it; goes with max, not with multi_label. The
    result is this label where its largest probability is at least 0.5, otherwise the likeliest of the others, and
    `best_slice` is the one in which it is most probable. Without it, labels such as `no_lesion` compete by their
    largest probability too."""
    stream: bool = False
    """Send server-sent events: the series, each slice when it is answered, and the response."""
    max_tokens: int | None = Field(default=None, ge=1)
    """With a question alone: longest answer, in tokens."""
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    """As in `/v1/vqa` and `/v1/classify`, for each slice."""
    min_label_mass: float | None = Field(default=None, ge=0, le=1)
    """As in `/v1/classify`, for each slice."""
    allow_unlike_training: bool = False
    """Do not mark a slice as abstained because it is unlike the training images."""
    modality: Modality | None = None
    """For the router statistics only, as in `/v1/vqa`."""
    include_report: bool = False
    """Add a DICOM SR (Comprehensive SR, TID 1500) on the result and on each slice to the response, as base64.
    `Accept: application/dicom` sends the report alone, `Accept: application/fhir+json` a DiagnosticReport."""
    store: SourceName | None = Field(default=None, examples=["pacs"])
    """Store the report in this source; for series of a source."""
    model: ModelName | None = Field(default=None, examples=["medmoe-tiny"])
    """As in `/v1/vqa`."""

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if self.question is None and self.labels is None:
            raise ValueError("send a question or labels")
        rules: tuple[str, ...] = ("most_confident", "majority") if self.labels is None else ("mean", "max")
        if self.labels is not None and self.max_tokens is not None:
            raise ValueError("max_tokens goes with a question alone")
        of_labels = self.mode != "likelihood" or self.contextual_calibration or self.min_label_mass is not None
        if self.labels is None and of_labels:
            raise ValueError("mode, contextual_calibration and min_label_mass go with labels")
        if self.aggregate is not None and self.aggregate not in rules:
            raise ValueError(
                f"aggregate is {' or '.join(rules)} for {'a question' if self.labels is None else 'labels'}"
            )
        if self.finding is not None and (
            self.finding not in (self.labels or ()) or self.mode == "multi_label" or self.aggregate == "mean"
        ):
            raise ValueError("finding is one of labels, and goes with aggregate max and without mode multi_label")
        return self


class SeriesRequest(SeriesFields):
    """`POST /v1/series` as JSON."""

    series: SeriesText | SeriesReference


class SeriesDescription(ApiModel):
    """What was made of the images."""

    slice_count: int
    """Slices of the series."""
    sampled: tuple[int, ...]
    """Indices of the slices that are asked about, in the order of the series."""
    ordered_by: OrderedBy
    """position: along the common normal of the slices. instance_number: no slice has a position."""
    spacing: float | None
    """Usual distance of neighbouring slices in millimetres; null without positions."""
    irregular: bool
    """Slices are unevenly spaced or displaced, and the request allowed it."""
    window: str | None
    """Sent with every slice, in the notation of the request; null where each slice is shown as its file says."""
    window_source: Literal["request", "middle_slice", "each_slice"]
    """each_slice: the middle slice has colours, a look-up table, a sigmoid, or no window because none is needed."""
    ignored_files: int
    """Files without an image, in an archive or a source."""


class SlicePlace(ApiModel):
    """A slice that was asked about."""

    index: int
    """In the order of the series, from 0."""
    position: float | None
    """Millimetres along the normal from the first slice."""
    instance: str
    """SOP Instance UID that the file states."""
    file: int
    """Index of the file among those sent, in the order of the form or of the DICOM files in the archive; of a source,
    among its images, in the order of its metadata."""
    frame: int | None
    """Frame of a multi-frame file, from 0."""
    uniform: bool
    """The slice comes out as one shade, so it was not asked about."""


class AnsweredSlice(SlicePlace):
    answer: VQAResponse | None
    """As `/v1/vqa` answers; null for a uniform slice."""


class ClassifiedSlice(SlicePlace):
    classification: AnyClassifyResponse | None
    """As `/v1/classify` answers; null for a uniform slice."""


class SeriesResponse(ApiModel):
    id: str
    model: str
    abstained: bool
    """No slice answers without abstaining, or the aggregated probability is under `min_confidence`; in mode multi_label
    that of any label."""
    calibrated: bool = False
    """No calibration was fitted to results of series, whatever `calibrated` says of a slice."""
    best_slice: int
    """Index of the slice that decides: of the answer with the highest confidence among those that equal `answer`; of
    the highest probability of `finding`, or else of the likeliest label."""
    series: SeriesDescription
    timings: Timings
    """Sums over the slices, which overlap, except `total`."""
    report: str | None = None
    """The report as base64, where the request includes it."""
    stored: StoredReport | None = None


class SeriesAnswer(SeriesResponse):
    """To a question."""

    kind: Literal["answer"] = "answer"
    answer: str
    rule: AnswerRule
    """Rule that chose the answer."""
    agreement: float
    """Share of the counted slices with this answer, letter case and outer punctuation aside."""
    slices: tuple[AnsweredSlice, ...]


class LabelAggregate(ApiModel):
    label: str
    probability: float
    """Probability by the rule; with max, those of different labels do not sum to 1."""
    best_slice: int
    """Index of the slice in which the label is most probable."""


class SeriesClassification(SeriesResponse):
    """The result of a series that was classified."""

    kind: Literal["classification"] = "classification"
    labels: tuple[str, ...]
    """The label with the highest probability, unless the request has a `finding`; in mode multi_label those with at
    least 0.5, in the request's order."""
    rule: LabelRule
    probabilities: tuple[LabelAggregate, ...]
    """In the request's order."""
    slices: tuple[ClassifiedSlice, ...]


class SeriesStarted(ApiModel):
    """The first event of a stream."""

    series: SeriesDescription


class SliceDone(ApiModel):
    """An event of a stream for each slice, in the order in which they are answered."""

    done: int
    """Slices so far."""
    slice: AnsweredSlice | ClassifiedSlice


AnySeriesResponse = Annotated[SeriesAnswer | SeriesClassification, Field(discriminator="kind")]
