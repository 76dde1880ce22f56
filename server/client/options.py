"""Define the optional fields of a request, which are keyword arguments of both clients. None means absent."""

from typing import Literal, TypedDict


class ViewOptions(TypedDict, total=False):
    """Options of every request with an image."""

    window: str | None
    """VOI window of a grey DICOM image: `40/400`, `full`, `file`, for CT a name such as `lung`; or three of these."""
    frame: int | None
    """Index of the frame in a DICOM file, a TIFF or an animation, from 0."""
    allow_uniform: bool | None
    """Whether to take an image that comes out as one shade; otherwise the service refuses it."""
    timeout_ms: int | None
    """Time limit in the service; the client's `timeout` also covers its retries."""
    model: str | None
    """Name of the model, as the service lists it; the active one when absent."""


class RenderOptions(ViewOptions, total=False):
    """Options of a rendering."""

    view: Literal["frame", "model"] | None
    """frame: for people, at most 1024 pixels a side. model: exactly what the model gets."""


class ImageOptions(ViewOptions, total=False):
    """Options of every request that the model answers about an image."""

    include_routing: bool | None
    """Whether to return the experts that the tokens were routed to."""
    modality: str | None
    """Modality label for the router's statistics; the model does not see it."""


class AnswerOptions(ImageOptions, total=False):
    """Options of every request whose answer may be marked as abstained."""

    min_confidence: float | None
    """Confidence below which an answer is marked as abstained."""
    allow_unlike_training: bool | None
    """Whether to answer about images that are unlike the training images without marking them as abstained."""


class DecisionOptions(AnswerOptions, total=False):
    """Options of decisions."""

    min_label_mass: float | None
    """Probability of a question's options together below which it is not answered."""


class ReportOptions(AnswerOptions, total=False):
    """Options of every request whose answer may come with a report."""

    include_report: bool | None
    """Whether to add the DICOM structured report, as base64; for DICOM images of a study."""
    store: str | None
    """Source of the service to store the report in; for an `Instance`."""


class AskOptions(ReportOptions, total=False):
    """Options of a question."""

    max_tokens: int | None
    temperature: float | None
    seed: int | None


class ClassifyOptions(ReportOptions, total=False):
    """Options of a classification."""

    alpha: float | None
    """Mode likelihood: add the labels that hold the true one with a probability of at least 1 - alpha."""
    min_label_mass: float | None
    """Probability of all labels together below which an answer is marked as abstained."""

    question: str | None
    """Question that replaces the checkpoint's own."""
    length_normalized: bool | None
    """Mode likelihood: divide each label's log-likelihood by its number of tokens."""
    contextual_calibration: bool | None
    """Mode likelihood: divide each label's likelihood by what it is on images that show nothing."""
    permutations: int | None
    """Mode choice: maximum number of label orders."""


class ExplainOptions(ImageOptions, total=False):
    """Options of an explanation."""

    answer: str | None
    """With a question: the answer to explain instead of the model's own."""
    label: str | None
    """With labels: the one to explain instead of the likeliest."""
    grid: int | None
    """Cells along the longer side of the image."""
    overlay: str | None
    """`layer` adds the map as transparent PNG of the rendered image's size, `image` over the image."""
    max_tokens: int | None
    """Maximum length of an answer that is generated."""


class SeriesOptions(TypedDict, total=False):
    """Options of every request about a series."""

    slices: int | None
    """Number of slices to look at, evenly spread over the series."""
    aggregate: str | None
    """How one result is made of those of the slices: `most_confident` or `majority` for a question, `mean` or `max`
    for labels."""
    window: str | None
    """VOI window of all slices, as in ViewOptions; that of the middle slice when absent."""
    allow_irregular: bool | None
    """Whether to take unevenly spaced or displaced slices; otherwise the service refuses them."""
    timeout_ms: int | None
    """Time limit in the service for all slices together."""
    min_confidence: float | None
    """Confidence below which a slice is marked as abstained."""
    allow_unlike_training: bool | None
    """Whether to answer about slices that are unlike the training images without marking them as abstained."""
    modality: str | None
    """Modality label for the router's statistics; the model does not see it."""
    include_report: bool | None
    """Whether to add the DICOM structured report, as base64; not in a stream."""
    store: str | None
    """Source of the service to store the report in; for a `Series`, not in a stream."""
    model: str | None
    """Name of the model, as in ViewOptions."""


class AskSeriesOptions(SeriesOptions, total=False):
    """Options of a question about a series."""

    max_tokens: int | None


class ClassifySeriesOptions(SeriesOptions, total=False):
    """Options of a classification of a series."""

    question: str | None
    """Question that replaces the checkpoint's own."""
    finding: str | None
    """Label that the series has as soon as one slice shows it; the best slice is the one in which it is likeliest."""
    contextual_calibration: bool | None
    """Divide each label's likelihood by what it is on images that show nothing."""
    min_label_mass: float | None
    """Probability of all labels together below which a slice is marked as abstained."""
