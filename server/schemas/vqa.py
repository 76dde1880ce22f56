"""Define the request and the response of `POST /v1/vqa`.

The models hold the limits of every deployment; medmoe.server.inference.vqa checks those that settings choose.
"""

from typing import Literal

from pydantic import Field

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.inference import (
    ImageText,
    InstanceReference,
    Modality,
    ModelName,
    Provenance,
    Question,
    ReportFields,
    Routing,
    StoredReport,
    Timings,
    UnlikeTraining,
)


class VQAFields(ReportFields):
    """The fields of `POST /v1/vqa` besides the image."""

    question: Question
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
    allow_unlike_training: bool = False
    """Do not mark the answer as abstained because the image is unlike the training images."""
    modality: Modality | None = None
    """The kind of the image, for the router statistics only: it never reaches the model. One of the checkpoint's
    `expert_domains` or a common name (CT, MRI, X-ray, ultrasound, ...); a refusal names them all."""
    model: ModelName | None = Field(default=None, examples=["medmoe-tiny"])
    """As `GET /v1/models` names it; absent: the active one. A name with @ and the beginning of the weights' hash is
    answered by those weights or refused."""


class VQARequest(VQAFields):
    """`POST /v1/vqa` as JSON."""

    image: ImageText | InstanceReference


class Confidence(ApiModel):
    """How likely the answer is to be right."""

    value: float
    """Calibrated: how often answers like this one equalled the reference. Otherwise the probability that the model
    gives to exactly this answer (or to its kept part, when cut by length; to its text with the stop string, when cut
    there)."""
    calibrated: bool
    """Whether the value went through the checkpoint's calibration.json, which was fitted to complete, greedy answers.
    False: the value is the model's own and says nothing about how often such answers are right."""


class Usage(ApiModel):
    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    cached_tokens: int


class SampledProvenance(Provenance):
    """Sent as fields of a request with the same image and question, these give the same answer again."""

    temperature: float
    seed: int | None
    max_tokens: int
    min_confidence: float | None
    allow_unlike_training: bool


class VQAResponse(ApiModel):
    id: str
    model: str
    answer: str
    finish_reason: Literal["stop", "length"]
    confidence: Confidence | None
    abstained: bool
    """The confidence is under `min_confidence`, or unknown where there is one; or the image is unlike the training
    images and `allow_unlike_training` is false. The answer is given all the same, and should not be relied on."""
    unlike_training: UnlikeTraining | None
    """Null: the checkpoint has no reference to compare images with."""
    usage: Usage
    timings: Timings
    provenance: SampledProvenance
    routing: Routing | None = None
    report: str | None = None
    """The report as base64, where the request includes it."""
    stored: StoredReport | None = None
