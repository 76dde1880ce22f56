"""Answer typed questions about one image: each is a classification of mode likelihood."""

import math
from collections.abc import Sequence
from itertools import islice

from medmoe.server.admission.deadline import Deadline
from medmoe.server.engine.base import GenerationError
from medmoe.server.errors import InvalidField
from medmoe.server.inference.classify import classify_several
from medmoe.server.inference.confidence import abstains, is_flagged
from medmoe.server.inference.context import InferenceContext
from medmoe.server.inference.label_probabilities import spread
from medmoe.server.inference.label_prompts import LabelPrompts, make_label_prompts
from medmoe.server.inference.openai.decision_request import AskedDecision
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.classify import ClassifyFields, ClassifyResponse
from medmoe.server.schemas.inference import is_blank
from medmoe.server.schemas.openai.decision_request import (
    ChoiceQuestion,
    DecisionQuestion,
    DecisionRequest,
    PredicateQuestion,
)
from medmoe.server.schemas.openai.decision_response import (
    Abstention,
    AnswerDetails,
    ChoiceAnswer,
    ChoiceProbability,
    Decision,
    DecisionAnswer,
    DecisionDetails,
    DecisionUsage,
    InputTokensDetails,
    PredicateAnswer,
    RefusalAnswer,
    RefusalDetails,
    ScoreAnswer,
    ScoreProbability,
)

ROUTE = "decisions"
_SHARED = tuple((DecisionRequest.model_fields.keys() & ClassifyFields.model_fields.keys()) - {"model"})
"""Options that mean the same in `/v1/classify`."""


async def decide(
    context: InferenceContext, asked: AskedDecision, *, deadline: Deadline, record: RequestRecord
) -> Decision:
    """Return the answers to all questions. Cancelling it aborts the scoring.

    Raises InvalidField, PromptError, Overloaded, DeadlineExceeded, the image errors and the engine errors.
    """
    request = asked.request
    context.router_stats.require_modality(request.modality)
    planned = _plan(context, asked, record=record)
    responses = await classify_several(
        context, planned, image=asked.image, deadline=deadline, record=record, route=ROUTE
    )
    found = [response for response in responses if isinstance(response, ClassifyResponse)]
    if len(found) < len(responses):
        raise GenerationError("a question of mode likelihood has the answer of another mode")
    answers = tuple(_answer(question, one) for question, one in zip(request.questions, found, strict=True))
    record.note_answer(
        calibrated=all(one.calibration is not None for one in found),
        abstained=any(isinstance(answer, RefusalAnswer) for answer in answers),
    )
    read, cached = record.tokens["prompt"], record.tokens["cached"]
    return Decision(
        answers=answers,
        model=context.checkpoint.config.name,
        usage=DecisionUsage(
            input_tokens=read, input_tokens_details=InputTokensDetails(cached_tokens=cached), total_tokens=read
        ),
        medmoe=DecisionDetails(
            unlike_training=found[0].unlike_training,
            timings=found[0].timings,
            provenance=found[0].provenance,
            routing=found[0].routing,
        ),
    )


def _plan(
    context: InferenceContext, asked: AskedDecision, *, record: RequestRecord
) -> Sequence[tuple[ClassifyFields, LabelPrompts]]:
    """Return the classification of each question; an error names the question's own field."""
    planned = []
    for index, question in enumerate(asked.request.questions):
        record.names = asked.names | _names(question, f"questions.{index}")
        fields = _classify_fields(context, question, asked)
        planned.append((fields, make_label_prompts(context, fields)))
    record.names = asked.names
    steps = sum(request.steps for _, prompts in planned for request in prompts.requests)
    if steps > context.settings.max_label_steps:
        raise InvalidField(
            f"the questions take {steps} engine steps together, over {context.settings.max_label_steps} "
            "(MEDMOE_MAX_LABEL_STEPS)",
            param="questions",
        )
    return planned


def _classify_fields(context: InferenceContext, question: DecisionQuestion, asked: AskedDecision) -> ClassifyFields:
    """Return the fields of `/v1/classify` that ask the same."""
    labels = tuple(label for spellings in question.options for label in spellings)
    words = "" if is_blank(question.instructions) else question.instructions.strip()
    if asked.texts and not words:
        words = context.checkpoint.prompt.classification(labels)
    return ClassifyFields(
        labels=labels,
        question="\n".join(filter(None, (asked.texts, words))) or None,
        **{name: getattr(asked.request, name) for name in _SHARED},
    )


def _names(question: DecisionQuestion, place: str) -> dict[str, str]:
    """Return the client's names of the fields of `/v1/classify`."""
    if isinstance(question, PredicateQuestion):
        return {"question": f"{place}.instructions", "labels": f"{place}.type"}
    name, text = ("choices", "value") if isinstance(question, ChoiceQuestion) else ("levels", "label")
    places = [f"{place}.{name}.{index}.{text}" for index, spellings in enumerate(question.options) for _ in spellings]
    labels = {f"labels.{index}": option for index, option in enumerate(places)}
    return {"question": f"{place}.instructions", "labels": f"{place}.{name}", **labels}


def _answer(question: DecisionQuestion, found: ClassifyResponse) -> DecisionAnswer:
    remaining = iter(found.probabilities)
    # Spellings of the same option are added.
    probabilities = [
        math.fsum(label.probability for label in islice(remaining, len(spellings))) for spellings in question.options
    ]
    details = AnswerDetails(
        label_mass=found.label_mass, entropy=spread(probabilities)[0], calibration=found.calibration
    )
    reason = _abstention(found, confidence=max(probabilities))
    if reason is not None:
        return RefusalAnswer(name=question.name, medmoe=RefusalDetails(**dict(details), reason=reason))
    if isinstance(question, PredicateQuestion):
        return PredicateAnswer(name=question.name, probability=probabilities[0], medmoe=details)
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    if isinstance(question, ChoiceQuestion):
        values = [choice.value for choice in question.choices]
        return ChoiceAnswer(
            name=question.name,
            choice=values[best],
            confidence=probabilities[best],
            probabilities=tuple(
                ChoiceProbability(value=value, probability=probability)
                for value, probability in zip(values, probabilities, strict=True)
            ),
            medmoe=details,
        )
    return ScoreAnswer(
        name=question.name,
        score=sum(value * probability for value, probability in enumerate(probabilities)),
        confidence=probabilities[best],
        probabilities=tuple(
            ScoreProbability(label=level.label, value=value, probability=probability)
            for value, (level, probability) in enumerate(zip(question.levels, probabilities, strict=True))
        ),
        medmoe=details,
    )


def _abstention(found: ClassifyResponse, *, confidence: float) -> Abstention | None:
    """Return why the service abstains, by the rules of `/v1/classify`; None where it answers."""
    if is_flagged(found.unlike_training) and not found.provenance.allow_unlike_training:
        return "unlike_training"
    if found.label_mass < found.provenance.min_label_mass:
        return "min_label_mass"
    return "min_confidence" if abstains(confidence, threshold=found.provenance.min_confidence) else None
