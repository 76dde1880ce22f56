"""Define the response of `POST /v1/decisions`: OpenAI's, with this service's details in `medmoe`."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictStr

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.classify import CalibrationNote, LikelihoodProvenance
from medmoe.server.schemas.inference import Routing, Timings, UnlikeTraining

Abstention = Literal["min_confidence", "min_label_mass", "unlike_training"]


class AnswerDetails(ApiModel):
    """The fields of a `POST /v1/classify` response that OpenAI's answer has no place for."""

    label_mass: float
    """Probability that the model's answer is exactly one of the options; near 0 means that none of them fits."""
    entropy: float
    """Entropy of the options' probabilities, in nats."""
    calibration: CalibrationNote | None
    """Null: the probabilities are the model's own."""


class RefusalDetails(AnswerDetails):
    reason: Abstention
    """Why `/v1/classify` would mark the answer as abstained. The first of: the image is unlike the training images,
    `label_mass` is under the threshold, the best probability is."""


class PredicateAnswer(ApiModel):
    type: Literal["predicate"] = "predicate"
    name: str | None
    probability: float
    """Probability of yes among yes and no."""
    medmoe: AnswerDetails


class ChoiceProbability(ApiModel):
    value: StrictStr | StrictBool
    probability: float


class ChoiceAnswer(ApiModel):
    type: Literal["choice"] = "choice"
    name: str | None
    choice: StrictStr | StrictBool
    confidence: float
    """The probability of `choice`, the most probable."""
    probabilities: tuple[ChoiceProbability, ...]
    """In the request's order; they sum to 1."""
    medmoe: AnswerDetails


class ScoreProbability(ApiModel):
    label: str
    value: int
    probability: float


class ScoreAnswer(ApiModel):
    type: Literal["score"] = "score"
    name: str | None
    score: float
    """The mean of the levels' values under their probabilities."""
    confidence: float
    """The probability of the most probable level."""
    probabilities: tuple[ScoreProbability, ...]
    """In the request's order; they sum to 1."""
    medmoe: AnswerDetails


class RefusalAnswer(ApiModel):
    """The service abstains, as `/v1/classify` would."""

    type: Literal["refusal"] = "refusal"
    name: str | None
    medmoe: RefusalDetails


DecisionAnswer = Annotated[PredicateAnswer | ChoiceAnswer | ScoreAnswer | RefusalAnswer, Field(discriminator="type")]


class InputTokensDetails(ApiModel):
    cache_write_tokens: int = 0
    cached_tokens: int


class OutputTokensDetails(ApiModel):
    reasoning_tokens: int = 0


class DecisionUsage(ApiModel):
    input_tokens: int
    """Tokens of the prompts of all questions, each with the image; all but the first find it in the cache."""
    input_tokens_details: InputTokensDetails
    output_tokens: int = 0
    """Options are scored, nothing is generated."""
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class DecisionDetails(ApiModel):
    """What all answers share."""

    unlike_training: UnlikeTraining | None
    """Null: the checkpoint has no reference to compare images with."""
    timings: Timings
    provenance: LikelihoodProvenance
    routing: Routing | None = None
    """Routing of all questions together; each token counts once."""


class Decision(ApiModel):
    answers: tuple[DecisionAnswer, ...]
    """In the order of the questions."""
    model: str
    usage: DecisionUsage
    medmoe: DecisionDetails
