"""The wire: what requests and answers look like, for validation and for /docs.

Apart from the records the rooms pass around inside, because these shapes are a promise to clients. Limits that a
deployment sets (lengths, counts) are checked in medmoe.server.request_body; here is what holds everywhere.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from medmoe.server.picture_schemas import PictureFields, Rendering
from medmoe.server.wire import Wire as _Wire

MAX_LABELS = 128
"""No deployment can allow more: the engine returns the log-probabilities of at most so many tokens at once."""

Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
ImageText = Annotated[
    str, Field(description="The picture as base64 or as a base64 data URL: PNG, JPEG, WebP, TIFF, BMP, DICOM.")
]


class VQAFields(PictureFields):
    """What `POST /v1/vqa` takes besides the picture."""

    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    """The question in plain words. Special tokens spelt in it are text."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer, in tokens."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """0 always gives the most likely answer."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Makes an answer with temperature above 0 reproducible; when absent one is chosen and reported."""
    stream: bool = False
    """Send the answer as server-sent events while it is generated."""
    include_routing: bool = False
    """Add which experts the tokens of this request went to."""
    timeout_ms: int | None = Field(default=None, ge=1)
    """Give up after this long, queue included; the service has its own limit."""


class VQARequest(VQAFields):
    """`POST /v1/vqa` as JSON."""

    image: ImageText


class ClassifyFields(PictureFields):
    """What `POST /v1/classify` takes besides the picture."""

    labels: tuple[Label, ...] = Field(min_length=2, max_length=MAX_LABELS)
    """The classes to choose from; distinct."""
    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None
    """Asked instead of the checkpoint's own classification question."""
    include_routing: bool = False
    timeout_ms: int | None = Field(default=None, ge=1)

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) != len(labels):
            raise ValueError("labels must be distinct")
        return labels


class ClassifyRequest(ClassifyFields):
    """`POST /v1/classify` as JSON."""

    image: ImageText


class Confidence(_Wire):
    """How sure of this answer one may be."""

    value: float
    """Calibrated: how often answers like this one equalled the reference. Otherwise the probability that the model
    gives to exactly this answer (or to its kept part, when cut by length)."""
    calibrated: bool
    """Through the checkpoint's calibration.json, which was fitted to whole, greedy answers. False: the value is the
    model's own and says nothing about how often such answers are right."""


class Usage(_Wire):
    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    cached_tokens: int


class Timings(_Wire):
    """Seconds."""

    image: float
    queue: float
    engine: float
    total: float


class Provenance(_Wire):
    """What is needed to reproduce the answer."""

    image_sha256: str
    """Of the bytes as they were sent."""
    width: int
    height: int
    rendering: Rendering
    mode: Literal["pad", "crop"]
    resized_to: tuple[int, int]
    weights_sha256: str | None
    """Of model.safetensors; null when the engine runs without weights."""
    adapter_sha256: str | None
    """Of adapter_model.safetensors; null when the checkpoint has no adapters."""


class SampledProvenance(Provenance):
    temperature: float
    seed: int | None


class LayerRouting(_Wire):
    """Tokens of this request by expert index, in one MoE layer."""

    layer: int
    image: tuple[int, ...]
    question: tuple[int, ...]
    """Every prompt token that is not the image's, the template's words included."""
    answer: tuple[int, ...]


class Routing(_Wire):
    expert_domains: tuple[str, ...]
    layers: tuple[LayerRouting, ...]


class VQAResponse(_Wire):
    id: str
    model: str
    answer: str
    finish_reason: Literal["stop", "length"]
    confidence: Confidence | None
    usage: Usage
    timings: Timings
    provenance: SampledProvenance
    routing: Routing | None = None


class LabelProbability(_Wire):
    label: str
    probability: float
    """Among the labels: they sum to 1. Calibrated where `calibration` says how."""
    log_likelihood: float
    """Natural logarithm of the probability that the model answers exactly this label and stops."""


class CalibrationNote(_Wire):
    """How `probabilities` were made of the model's own, and what that did to data it was not fitted on."""

    method: Literal["temperature", "isotonic"]
    temperature: float | None
    """Above 1: the model was too sure. Null for isotonic."""
    datasets: tuple[str, ...]
    split: str
    fitted_on: int
    """Samples."""
    held_out: int
    """Samples of other images, on which the errors are."""
    ece_before: float
    """Expected calibration error."""
    ece_after: float


class ClassifyResponse(_Wire):
    id: str
    model: str
    label: str
    probabilities: tuple[LabelProbability, ...]
    """In the request's order."""
    label_mass: float
    """Probability that the model's answer is exactly one of the labels; near 0 means that none of them fits."""
    entropy: float
    """Of `probabilities`, in nats."""
    margin: float
    """Between the two most probable labels."""
    abstained: bool = False
    calibration: CalibrationNote | None = None
    """Null: the probabilities are the model's own, because the checkpoint has no calibration or because the question
    is not the one that it was fitted with."""
    timings: Timings
    provenance: Provenance
    routing: Routing | None = None


class ExpertLoad(_Wire):
    expert: int
    domain: str | None
    tokens: int
    load_share: float


class LayerLoad(_Wire):
    """How one MoE layer spread its tokens; entropy and cv are null before the first token."""

    layer: int
    tokens: int
    entropy: float | None
    """0: one expert takes all; 1: perfectly even."""
    cv: float | None
    """Standard deviation of the experts' tokens over their mean."""
    dead_experts: tuple[int, ...]
    experts: tuple[ExpertLoad, ...]


class RouterStatsResponse(_Wire):
    model: str
    since: str
    """Start of counting, ISO 8601, UTC."""
    requests: int
    expert_domains: tuple[str, ...]
    overall: tuple[LayerLoad, ...]
    by_kind: dict[str, tuple[LayerLoad, ...]]
    by_route: dict[str, tuple[LayerLoad, ...]]


class ModelInfo(_Wire):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(_Wire):
    object: Literal["list"] = "list"
    data: tuple[ModelInfo, ...]


class Metadata(_Wire):
    """What is served, by what."""

    service: str
    """Version of this software."""
    engine: Literal["vllm", "fake"]
    engine_version: str | None
    model: str
    weights_sha256: str | None
    """Null until the weights have been read, or when there are none."""
    adapter_sha256: str | None
    config_sha256: str
    calibrated: tuple[Literal["classification", "answers"], ...]
    """Which probabilities go through the checkpoint's calibration.json."""
    licence: str
    """As the checkpoint states it."""
    expert_domains: tuple[str, ...]
    intended_use: str


class Health(_Wire):
    status: str


class ErrorBody(_Wire):
    type: str
    code: str
    message: str
    param: str | None
    request_id: str


class ErrorResponse(_Wire):
    """The one body of every failure."""

    error: ErrorBody
