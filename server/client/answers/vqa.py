"""Define the answer of `/v1/vqa` and the parts that it shares with classifications; /docs explains each field.

Values that a newer service may extend (formats, steps, reasons) are plain strings.
"""

from dataclasses import dataclass

from medmoe.client.answers.base import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """Next piece of a streamed answer."""

    text: str


class Confidence(Message):
    value: float
    calibrated: bool


class Usage(Message):
    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    cached_tokens: int


class UnlikeTraining(Message):
    """How unlike the images that the model was trained on an image is."""

    score: float
    threshold: float
    flagged: bool
    """Whether the score is over the threshold; no probability about such an image is called calibrated."""


class Timings(Message):
    """Durations in seconds."""

    fetch: float
    image: float
    queue: float
    engine: float
    total: float


class AppliedWindow(Message):
    source: str
    centre: float | None = None
    width: float | None = None
    function: str | None = None


class Rendering(Message):
    """Describe how the file was rendered for the model."""

    format: str
    colour: str
    frame: int
    frames: int
    steps: tuple[str, ...]
    windows: tuple[AppliedWindow, ...]


class ImageProvenance(Message):
    """Record the image, how the model saw it, and the weights."""

    image_sha256: str
    """SHA-256 of the bytes as they were sent."""
    width: int
    height: int
    rendering: Rendering
    mode: str
    resized_to: tuple[int, int]
    weights_sha256: str | None
    adapter_sha256: str | None
    dtype: str | None


class Provenance(ImageProvenance):
    """Record what reproduces the answer."""

    min_confidence: float | None
    allow_unlike_training: bool = False


class SampledProvenance(Provenance):
    temperature: float
    seed: int | None
    max_tokens: int


class LayerRouting(Message):
    """Token counts of one request in one MoE layer, indexed by expert."""

    layer: int
    image: tuple[int, ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]


class Routing(Message):
    expert_domains: tuple[str, ...]
    layers: tuple[LayerRouting, ...]


class StoredReport(Message):
    """Where the report was stored."""

    source: str
    study: str
    series: str
    instance: str


class VqaAnswer(Message):
    """Answer of `/v1/vqa`."""

    id: str
    model: str
    answer: str
    finish_reason: str
    """`stop`, or `length` for an answer that was cut."""
    confidence: Confidence | None
    abstained: bool
    """Whether the confidence is below `min_confidence` or the image is unlike the training images; such an answer
    should not be relied on."""
    unlike_training: UnlikeTraining | None = None
    usage: Usage
    timings: Timings
    provenance: SampledProvenance
    routing: Routing | None = None
    report: str | None = None
    """The DICOM structured report as base64, if it was asked for."""
    stored: StoredReport | None = None
