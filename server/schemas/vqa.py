"""The wire: what requests and answers look like, for validation and for /docs.

Apart from the records the rooms pass around inside, because these shapes are a promise to clients. Limits that a
deployment sets (lengths, counts) are checked in medmoe.server.http.request_body; here is what holds everywhere.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.images import ImageFields, Rendering

MAX_LABELS = 128
"""No deployment can allow more: the engine returns the log-probabilities of at most so many tokens at once."""

Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Modality = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Dtype = Literal["float32", "bfloat16", "float16"]
ImageText = Annotated[
    str,
    Field(
        description="The picture as base64 or as a base64 data URL: PNG, JPEG, WebP, TIFF, BMP, DICOM; where the "
        "deployment names hosts (MEDMOE_IMAGE_URL_HOSTS), its https URL."
    ),
]


class VQAFields(ImageFields):
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
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    """Mark the answer as abstained when its confidence is lower; absent: the deployment's threshold, 0: never."""
    modality: Modality | None = None
    """What kind of picture this is, for the router statistics only: it never reaches the model. One of the checkpoint's
    `expert_domains` or a common name (CT, MRI, X-ray, ultrasound, ...); a refusal names them all."""


class VQARequest(VQAFields):
    """`POST /v1/vqa` as JSON."""

    image: ImageText


class ClassifyFields(ImageFields):
    """What `POST /v1/classify` takes besides the picture."""

    labels: tuple[Label, ...] = Field(min_length=1, max_length=MAX_LABELS)
    """The classes to choose from, distinct; at least two, but for mode multi_label."""
    mode: Literal["likelihood", "choice", "multi_label"] = "likelihood"
    """likelihood: how likely each label is as the whole answer. choice: how likely each label's letter (A, B, ...) is,
    averaged over orders of the options. multi_label: yes or no about each label on its own."""
    length_normalized: bool = False
    """Mode likelihood: compare labels by their mean per token, so that long ones are not unlikely for their length."""
    permutations: int | None = Field(default=None, ge=1)
    """Mode choice: at most so many orders of the options; as many as there are labels cancel what the model thinks of
    letters and places. Absent: those, or what the service allows."""
    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None
    """Asked instead of the checkpoint's own classification question."""
    include_routing: bool = False
    timeout_ms: int | None = Field(default=None, ge=1)
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    """Mark the answer as abstained when its best probability is lower; absent: the deployment's threshold, 0: never."""
    modality: Modality | None = None
    """For the router statistics only, as in `/v1/vqa`."""

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) != len(labels):
            raise ValueError("labels must be distinct")
        return labels


class ClassifyRequest(ClassifyFields):
    """`POST /v1/classify` as JSON."""

    image: ImageText


class Confidence(ApiModel):
    """How sure of this answer one may be."""

    value: float
    """Calibrated: how often answers like this one equalled the reference. Otherwise the probability that the model
    gives to exactly this answer (or to its kept part, when cut by length)."""
    calibrated: bool
    """Through the checkpoint's calibration.json, which was fitted to whole, greedy answers. False: the value is the
    model's own and says nothing about how often such answers are right."""


class Usage(ApiModel):
    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    cached_tokens: int


class Timings(ApiModel):
    """Seconds."""

    fetch: float
    """Of the picture by its URL; 0 when it was sent."""
    image: float
    queue: float
    engine: float
    total: float


class Provenance(ApiModel):
    """What is needed to reproduce the answer."""

    image_sha256: str
    """Of the bytes as they were sent or fetched."""
    width: int
    height: int
    rendering: Rendering
    mode: Literal["pad", "crop"]
    resized_to: tuple[int, int]
    weights_sha256: str | None
    """Of model.safetensors; null when the engine runs without weights."""
    adapter_sha256: str | None
    """Of adapter_model.safetensors; null when the checkpoint has no adapters."""
    dtype: Dtype | None
    """Number format that the engine computed in; null when the engine runs without weights."""


class SampledProvenance(Provenance):
    """With the picture and the question, sent as fields of a request, these give the same answer again."""

    temperature: float
    seed: int | None
    max_tokens: int
    min_confidence: float | None


class LayerRouting(ApiModel):
    """Tokens of this request by expert index, in one MoE layer."""

    layer: int
    image: tuple[int, ...]
    question: tuple[int, ...]
    """Every prompt token that is not the image's, the template's words included."""
    answer: tuple[int, ...]


class Routing(ApiModel):
    expert_domains: tuple[str, ...]
    layers: tuple[LayerRouting, ...]


class VQAResponse(ApiModel):
    id: str
    model: str
    answer: str
    finish_reason: Literal["stop", "length"]
    confidence: Confidence | None
    abstained: bool
    """The confidence is under `min_confidence`, or unknown where there is one: the answer, which is given all the same,
    should not be relied on."""
    usage: Usage
    timings: Timings
    provenance: SampledProvenance
    routing: Routing | None = None


class ModelInfo(ApiModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(ApiModel):
    object: Literal["list"] = "list"
    data: tuple[ModelInfo, ...]


class Metadata(ApiModel):
    """What is served, by what."""

    service: str
    """Version of this software."""
    engine: Literal["vllm", "fake"]
    engine_version: str | None
    dtype: Dtype | None
    """Number format that the engine computes in; null when it runs without weights."""
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


class Health(ApiModel):
    status: str


class ErrorBody(ApiModel):
    type: str
    code: str
    message: str
    param: str | None
    request_id: str


class ErrorResponse(ApiModel):
    """The one body of every failure."""

    error: ErrorBody
