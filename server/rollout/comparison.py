"""Ask two models the same questions, and measure how far their answers differ."""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from medmoe.model.errors import MedMoEError
from medmoe.server.admission.deadline import Deadline
from medmoe.server.admission.slots import Admission
from medmoe.server.http.error_table import error_spec
from medmoe.server.inference.classify import classify_image
from medmoe.server.inference.context import InferenceContext
from medmoe.server.inference.vqa import answer, whole_answer
from medmoe.server.models.served_model import ServedModel
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.rollout.question_list import ComparedQuestion
from medmoe.server.rollout.schema import Comparison, FailedQuestion
from medmoe.server.router_stats.stats import RouterStats
from medmoe.server.schemas.classify import ChoiceResponse, ClassifyFields, ClassifyResponse, MultiLabelResponse
from medmoe.server.schemas.vqa import VQAResponse

_Answer = VQAResponse | ClassifyResponse | ChoiceResponse | MultiLabelResponse


@dataclass(kw_only=True, slots=True)
class _Tally:
    compared: int = 0
    differences: list[float] = field(default_factory=list)
    changed_abstentions: int = 0
    different: list[int] = field(default_factory=list)
    failed: list[FailedQuestion] = field(default_factory=list)

    def add(self, index: int, first: _Answer, second: _Answer) -> None:
        self.compared += 1
        if _said(first) != _said(second):
            self.different.append(index)
        pairs = list(zip(_probabilities(first), _probabilities(second), strict=True))
        known = [abs(one - other) for one, other in pairs if one is not None and other is not None]
        if known:
            self.differences.append(math.fsum(known) / len(known))
        self.changed_abstentions += first.abstained != second.abstained


async def compare(
    active: ServedModel, loaded: ServedModel, questions: Sequence[ComparedQuestion]
) -> AsyncIterator[Comparison]:
    """Yield the comparison before the first and after each question, which are asked one by one, outside admission
    and statistics.

    A question that a model refuses is counted as failed.
    """
    tally = _Tally()
    contexts = [_apart(model) for model in (active, loaded)]

    def found() -> Comparison:
        return Comparison(
            checkpoint=loaded.directory.name,
            against=active.directory.name,
            questions=len(questions),
            compared=tally.compared,
            agreement=1 - len(tally.different) / tally.compared if tally.compared else None,
            mean_probability_difference=(
                math.fsum(tally.differences) / len(tally.differences) if tally.differences else None
            ),
            changed_abstentions=tally.changed_abstentions,
            different=tuple(tally.different),
            failed=tuple(tally.failed),
        )

    yield found()
    for index, question in enumerate(questions):
        try:
            first, second = [await _ask(context, question) for context in contexts]
        except MedMoEError as error:
            tally.failed.append(FailedQuestion(index=index, code=error_spec(error).code))
        else:
            tally.add(index, first, second)
        yield found()


def _apart(model: ServedModel) -> InferenceContext:
    """Return the model's context with a slot and statistics of its own."""
    return replace(
        model.inference,
        admission=Admission(max_concurrent=1, max_queued=0),
        router_stats=RouterStats(model.checkpoint.config),
    )


async def _ask(context: InferenceContext, question: ComparedQuestion) -> _Answer:
    """Return the answer. Raises what `answer` and `classify_image` raise."""
    record = RequestRecord(request_id="comparison", method="POST")
    deadline = Deadline(context.settings.timeout_ms / 1000)
    if isinstance(question.fields, ClassifyFields):
        return await classify_image(context, question.fields, image=question.image, deadline=deadline, record=record)
    return await whole_answer(answer(context, question.fields, image=question.image, deadline=deadline, record=record))


def _said(found: _Answer) -> object:
    """Return what two answers must share to be equal."""
    if isinstance(found, VQAResponse):
        return found.answer
    return found.labels if isinstance(found, MultiLabelResponse) else found.label


def _probabilities(found: _Answer) -> list[float | None]:
    if isinstance(found, VQAResponse):
        return [found.confidence.value if found.confidence else None]
    return [one.probability for one in found.probabilities]
