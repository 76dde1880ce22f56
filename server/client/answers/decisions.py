"""Define the answers of `/v1/decisions`; /docs explains each field."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictStr

from medmoe.client.answers.base import Message
from medmoe.client.answers.classify import CalibrationNote, LikelihoodProvenance
from medmoe.client.answers.vqa import Routing, Timings, UnlikeTraining


class AnswerDetails(Message):
    label_mass: float
    """Probability that the model's answer is exactly one of the options."""
    entropy: float
    calibration: CalibrationNote | None


class RefusalDetails(AnswerDetails):
    reason: str
    """`min_confidence`, `min_label_mass` or `unlike_training`."""


class PredicateAnswer(Message):
    type: Literal["predicate"] = "predicate"
    name: str | None
    probability: float
    """Probability of yes among yes and no."""
    medmoe: AnswerDetails


class ChoiceProbability(Message):
    value: StrictStr | StrictBool
    probability: float


class ChoiceAnswer(Message):
    type: Literal["choice"] = "choice"
    name: str | None
    choice: StrictStr | StrictBool
    """Most probable choice."""
    confidence: float
    probabilities: tuple[ChoiceProbability, ...]
    medmoe: AnswerDetails


class ScoreProbability(Message):
    label: str
    value: int
    probability: float


class ScoreAnswer(Message):
    type: Literal["score"] = "score"
    name: str | None
    score: float
    """Mean of the levels' values under their probabilities."""
    confidence: float
    probabilities: tuple[ScoreProbability, ...]
    medmoe: AnswerDetails


class RefusalAnswer(Message):
    """The service abstains from this question."""

    type: Literal["refusal"] = "refusal"
    name: str | None
    medmoe: RefusalDetails


AnyDecisionAnswer = PredicateAnswer | ChoiceAnswer | ScoreAnswer | RefusalAnswer


class InputTokensDetails(Message):
    cache_write_tokens: int
    cached_tokens: int


class OutputTokensDetails(Message):
    reasoning_tokens: int


class DecisionUsage(Message):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class DecisionDetails(Message):
    unlike_training: UnlikeTraining | None
    timings: Timings
    provenance: LikelihoodProvenance
    routing: Routing | None = None


class Decision(Message):
    """Answer of `/v1/decisions`."""

    answers: tuple[Annotated[AnyDecisionAnswer, Field(discriminator="type")], ...]
    """One entry for each question, in order."""
    model: str
    usage: DecisionUsage
    medmoe: DecisionDetails
