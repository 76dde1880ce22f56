"""The wire: what requests and answers look like, for validation and for /docs.

Apart from the records the rooms pass around inside, because these shapes are a promise to clients. Limits that a
deployment sets (lengths, counts) are checked in medmoe.server.request_body; here is what holds everywhere.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from medmoe.model.image_processor import Conversion
from medmoe.server import windows

MAX_LABELS = 128
"""No deployment can allow more: the engine returns the log-probabilities of at most so many tokens at once."""

Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
ImageText = Annotated[
    str, Field(description="The picture as base64 or as a base64 data URL: PNG, JPEG, WebP, TIFF, BMP, DICOM.")
]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class PictureFields(_Wire):
    """How to show the picture; what does not apply to the one sent is refused."""

    window: str | None = Field(
        default=None,
        max_length=windows.MAX_LENGTH,
        examples=["lung", "40/400", "lung,mediastinum,bone"],
    )
    """For grey DICOM pictures: `centre/width` in the picture's own units, `file` (the file's window), `full` (smallest
    to largest value), or for CT one of lung, mediastinum, soft_tissue, liver, bone, brain, subdural, stroke. Three of
    these with commas between them become red, green and blue. When absent, the file's window where it has one."""
    frame: int | None = Field(default=None, ge=0, le=2**31)
    """Which frame of a multi-frame DICOM file, page of a TIFF or picture of an animation, from 0. The first when
    absent."""

    @field_validator("window")
    @classmethod
    def _readable(cls, window: str | None) -> str | None:
        if window is not None:
            windows.parse(window)
        return window


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


RenderingStep = Literal["palette", "high_byte", "modality_lut", "rescale", "voi_lut", "window", "invert"] | Conversion


class AppliedWindow(_Wire):
    """Which values became black to white."""

    source: Literal["file", "preset", "request", "full"]
    centre: float | None = None
    """In the picture's own units, Hounsfield in CT; null for a look-up table of the file."""
    width: float | None = None
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] | None = None
    """As DICOM defines them (PS3.3 C.11.2.1)."""


class Rendering(_Wire):
    """How the file became an 8-bit RGB picture; padding or cropping and resizing follow."""

    format: Literal["PNG", "JPEG", "WEBP", "TIFF", "BMP", "DICOM"]
    colour: str
    """As stored: Pillow's mode, or DICOM's photometric interpretation."""
    frame: int
    """The one shown, from 0."""
    frames: int
    """In the file."""
    steps: tuple[RenderingStep, ...]
    """What was done, in order: a palette applied; more than 8 bits of colour cut to the upper 8; DICOM's modality
    look-up table, rescaling, VOI look-up table, window, inversion; the camera's orientation undone; grey stretched
    from its minimum and maximum; transparency laid over black."""
    windows: tuple[AppliedWindow, ...]
    """One, or one each for red, green and blue; none for colours and for 8-bit grey without a window."""


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
