"""Define the request and the response of `POST /v1/explain`.

The models hold the limits of every deployment; medmoe.server.inference.explain checks those that settings choose.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.classify import MAX_LABELS, distinct_labels
from medmoe.server.schemas.images import ImageFields
from medmoe.server.schemas.inference import (
    ImageText,
    InstanceReference,
    Label,
    Modality,
    ModelName,
    Provenance,
    Question,
    Routing,
    Timings,
    UnlikeTraining,
    Words,
)

MAX_GRID = 32
"""No deployment can allow more cells along the longer side."""


class ExplainFields(ImageFields):
    """The fields of `POST /v1/explain` besides the image: a question, or labels."""

    question: Question | None = None
    """Whose answer is explained; with `labels`, asked instead of the checkpoint's own classification question."""
    answer: Words | None = None
    """The answer to explain, with a question; absent: the model's own, which is generated first."""
    labels: (
        Annotated[tuple[Label, ...], Field(min_length=2, max_length=MAX_LABELS), AfterValidator(distinct_labels)] | None
    ) = None
    """Explain one of these labels, as `/v1/classify` scores them in mode likelihood."""
    label: Label | None = None
    """The one of `labels` to explain; absent: the likeliest."""
    grid: int | None = Field(default=None, ge=2, le=MAX_GRID)
    """Cells along the longer side of the image; absent: the deployment's number. Each cell is an image for the
    engine."""
    overlay: Literal["none", "layer", "image"] = "none"
    """Add the map as PNG, of the size in which `/v1/render` shows the image: layer is transparent, to lay over it;
    image has it underneath."""
    max_tokens: int | None = Field(default=None, ge=1)
    """With a question alone: longest answer to generate, in tokens."""
    include_routing: bool = False
    """Add which experts the tokens went to, with the whole image in sight."""
    timeout_ms: int | None = Field(default=None, ge=1)
    """Give up after this long, the whole map and the queue included; the service has its own limit."""
    modality: Modality | None = None
    """For the router statistics only, as in `/v1/vqa`."""
    model: ModelName | None = Field(default=None, examples=["medmoe-tiny"])
    """As in `/v1/vqa`."""

    @model_validator(mode="after")
    def _explains_one_thing(self) -> Self:
        if self.question is None and self.labels is None:
            raise ValueError("send a question or labels")
        if self.labels is None and self.label is not None:
            raise ValueError("label goes with labels")
        if self.labels is not None and (self.answer is not None or self.max_tokens is not None):
            raise ValueError("answer and max_tokens go with a question alone")
        if self.answer is not None and self.max_tokens is not None:
            raise ValueError("max_tokens goes with an answer that is generated")
        if self.labels is not None and self.label is not None and self.label not in self.labels:
            raise ValueError("label is none of labels")
        return self


class ExplainRequest(ExplainFields):
    """`POST /v1/explain` as JSON."""

    image: ImageText | InstanceReference


class Region(ApiModel):
    """A part of the image as `/v1/render` shows it, in fractions of its width and height from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float


class ExplainProvenance(Provenance):
    """Sent as fields of a request with the same image, question, labels, and the response's own `answer` as `answer` or
    `label`, these give the same map again."""

    grid: int
    """Cells along the longer side."""
    patch: float
    """Side of the patch that covers the image around a cell, in cells."""
    fill: Literal["blur"]
    """What the patch shows: the image, blurred over about a cell."""


class ExplainResponse(ApiModel):
    id: str
    model: str
    answer: str
    """The answer or label whose likelihood was measured."""
    chosen_by: Literal["request", "model"]
    """model: it was generated, or is the likeliest of the labels."""
    log_likelihood: float
    """Natural logarithm of the probability that the model answers exactly this to the whole image: with `labels` and
    for an answer of the request with its end, for one that `max_tokens` cut off without."""
    rows: int
    columns: int
    region: Region
    """The part of the image that the cells divide; all of it, except where the checkpoint crops images."""
    drops: tuple[tuple[float, ...], ...]
    """By row from the top and column from the left: how much `log_likelihood` falls when a soft-edged, blurred patch
    covers the image around the cell. Negative where the answer becomes likelier. What the model reacts to, not the
    outline of a finding."""
    importance: tuple[tuple[float, ...], ...]
    """Likewise: the mean of the drops of the patches over a cell, by how much of it they cover. Neighbouring patches
    overlap; this is what the overlay shows."""
    scale: float
    """The importance that the overlay shows in full colour: the largest of either sign, at least 0.1, so that a map in
    which nothing matters stays faint."""
    engine_requests: int
    """Requests that the engine answered for this map."""
    overlay: str | None
    """A PNG as data URL, where the request asks for one. Orange: covering it makes the answer less likely; blue:
    likelier."""
    unlike_training: UnlikeTraining | None
    """Null: the checkpoint has no reference to compare images with."""
    timings: Timings
    provenance: ExplainProvenance
    routing: Routing | None = None
