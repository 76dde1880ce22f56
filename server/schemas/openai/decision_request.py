"""Define the request of OpenAI's decisions that this service offers: typed questions about one image."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, field_validator, model_validator

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.classify import MAX_LABELS, NO, YES, distinct_labels
from medmoe.server.schemas.images import ImageFields
from medmoe.server.schemas.inference import Label, Modality, Words, is_blank

MAX_QUESTIONS = 64
MAX_PARTS = 64
Spellings = tuple[str, ...]
"""The answers of the model that mean the same option; their probabilities are added."""


class InputText(ApiModel):
    type: Literal["input_text"]
    text: str


class InputImage(ApiModel):
    type: Literal["input_image"]
    image_url: str
    """The image as a base64 data URL; where the deployment names hosts (MEDMOE_IMAGE_URL_HOSTS), its https URL."""
    detail: Literal["auto", "low", "high", "original"] | None = None
    """Changes nothing: the checkpoint decides at which size it sees an image."""


class InputMessage(ApiModel):
    role: Literal["user"]
    type: Literal["message"] = "message"
    content: tuple[Annotated[InputText | InputImage, Field(discriminator="type")], ...] = Field(
        min_length=1, max_length=MAX_PARTS
    )
    """One image, and texts that stand before every question."""


class _Asked(ApiModel):
    name: str | None = None
    """Returned with the answer."""


class PredicateQuestion(_Asked):
    """Whether something is so: the answers yes and Yes against no and No."""

    type: Literal["predicate"]
    instructions: Words
    """The question, to which yes or no is the answer."""

    @property
    def options(self) -> tuple[Spellings, ...]:
        """Return the answers that are scored."""
        return (YES, NO)


class Choice(ApiModel):
    value: Label | StrictBool
    """True is scored as the answers yes and Yes, false as no and No."""

    @property
    def spellings(self) -> Spellings:
        """Return the answers that are scored."""
        return (self.value,) if isinstance(self.value, str) else YES if self.value else NO


class ChoiceQuestion(_Asked):
    """Which of the choices fits best."""

    type: Literal["choice"]
    instructions: str
    """The question; an empty one stands for the checkpoint's own, for which it may have a calibration."""
    choices: tuple[Choice, ...] = Field(min_length=2, max_length=MAX_LABELS)

    @field_validator("choices")
    @classmethod
    def _distinct(cls, choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
        _require_distinct([label for choice in choices for label in choice.spellings])
        return choices

    @model_validator(mode="after")
    def _has_question(self) -> Self:
        if is_blank(self.instructions) and any(isinstance(choice.value, bool) for choice in self.choices):
            raise ValueError("true and false are answers to a question: send instructions")
        return self

    @property
    def options(self) -> tuple[Spellings, ...]:
        """Return the answers that are scored."""
        return tuple(choice.spellings for choice in self.choices)


class ScoreLevel(ApiModel):
    label: Label


class ScoreQuestion(_Asked):
    """Where on a scale the image lies."""

    type: Literal["score"]
    instructions: str
    """As for a choice."""
    levels: tuple[ScoreLevel, ...] = Field(min_length=2, max_length=MAX_LABELS)
    """In ascending order; the first has the value 0."""

    @field_validator("levels")
    @classmethod
    def _distinct(cls, levels: tuple[ScoreLevel, ...]) -> tuple[ScoreLevel, ...]:
        _require_distinct([level.label for level in levels])
        return levels

    @property
    def options(self) -> tuple[Spellings, ...]:
        """Return the answers that are scored."""
        return tuple((level.label,) for level in self.levels)


DecisionQuestion = Annotated[PredicateQuestion | ChoiceQuestion | ScoreQuestion, Field(discriminator="type")]


class DecisionRequest(ImageFields):
    """`POST /v1/decisions`: questions about one image."""

    model: str | None = None
    """As `GET /v1/models` names it; absent: the active one."""
    input: tuple[InputMessage, ...] = Field(min_length=1, max_length=1)
    """One user message: checkpoints have no place for instructions or for earlier answers."""
    questions: tuple[DecisionQuestion, ...] = Field(min_length=1, max_length=MAX_QUESTIONS)
    """Asked apart: none knows of the others."""
    prompt_cache_key: str | None = None
    """Changes nothing, like `prompt_cache_options` and `safety_identifier`."""
    prompt_cache_options: dict[str, Any] | None = None
    safety_identifier: str | None = None
    include_routing: bool = False
    """A field of this service, and none of OpenAI's, as are those below and `window`, `frame` and `allow_uniform`."""
    timeout_ms: int | None = Field(default=None, ge=1)
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    """Refuse an answer whose best probability is lower; absent: the deployment's threshold, 0: never."""
    min_label_mass: float | None = Field(default=None, ge=0, le=1)
    """Refuse an answer whose `label_mass` is lower; absent: the deployment's threshold, 0: never."""
    allow_unlike_training: bool = False
    """Do not refuse the answers because the image is unlike the training images."""
    modality: Modality | None = None
    """For the router statistics only, as in `/v1/vqa`."""


def _require_distinct(labels: list[str]) -> None:
    if len(labels) > MAX_LABELS:
        raise ValueError(f"together they have over {MAX_LABELS} spellings")
    distinct_labels(tuple(labels))
