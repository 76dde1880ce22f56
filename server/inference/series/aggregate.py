"""Make one result of those of the slices, by a named rule."""

import math
import string
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from medmoe.server.inference.confidence import abstains, is_flagged
from medmoe.server.schemas.classify import AnyClassification, MultiLabelResponse
from medmoe.server.schemas.series import AnsweredSlice, AnswerRule, ClassifiedSlice, LabelAggregate, LabelRule
from medmoe.server.schemas.vqa import VQAResponse

Slice = TypeVar("Slice", AnsweredSlice, ClassifiedSlice)


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregatedAnswer:
    answer: str
    best_slice: int
    agreement: float
    abstained: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregatedLabels:
    labels: tuple[str, ...]
    probabilities: tuple[LabelAggregate, ...]
    best_slice: int
    abstained: bool


def aggregate_answers(slices: Sequence[AnsweredSlice], rule: AnswerRule) -> AggregatedAnswer:
    """Return the answer of the slices, at least one of which has one."""
    answered = [(one.index, one.answer) for one in slices if one.answer is not None]
    counted, abstained = _counted([(index, answer, answer.abstained) for index, answer in answered])
    groups: dict[str, list[tuple[int, VQAResponse]]] = defaultdict(list)
    for index, answer in counted:
        groups[_normalised(answer.answer)].append((index, answer))

    def rank(group: list[tuple[int, VQAResponse]]) -> tuple[int, float]:
        return len(group) if rule == "majority" else 0, max(_confidence(answer) for _, answer in group)

    group = max(groups.values(), key=rank)
    index, chosen = max(group, key=lambda one: _confidence(one[1]))
    return AggregatedAnswer(
        answer=chosen.answer, best_slice=index, agreement=len(group) / len(counted), abstained=abstained
    )


def aggregate_labels(
    labels: Sequence[str],
    slices: Sequence[ClassifiedSlice],
    rule: LabelRule,
    *,
    several: bool,
    finding: str | None = None,
    min_confidence: float | None,
) -> AggregatedLabels:
    """Return the labels of the slices, at least one of which was classified.

    With `several`, each is asked alone, and a slice that abstains from one counts for the others. With `finding`, that
    label decides by its largest probability.
    """
    found = [(one.index, one.classification) for one in slices if one.classification is not None]
    abstained = False
    aggregates = []
    for number, label in enumerate(labels):
        counted, all_abstain = _counted(
            [(index, answer.probabilities[number].probability, _abstains(answer, number)) for index, answer in found]
        )
        abstained = abstained or all_abstain
        shares = dict(counted)
        probability = max(shares.values()) if rule == "max" else math.fsum(shares.values()) / len(shares)
        best_slice = max(shares, key=shares.__getitem__)
        aggregates.append(LabelAggregate(label=label, probability=probability, best_slice=best_slice))
    best = max(aggregates, key=lambda one: one.probability)
    chosen: tuple[str, ...]
    if finding is not None:
        best = next(one for one in aggregates if one.label == finding)
        others = [one for one in aggregates if one is not best]
        is_shown = best.probability >= 0.5 or not others
        sure = max(best.probability, 1 - best.probability)
        chosen = ((best if is_shown else max(others, key=lambda one: one.probability)).label,)
    elif several:
        sure = min(max(one.probability, 1 - one.probability) for one in aggregates)
        chosen = tuple(one.label for one in aggregates if one.probability >= 0.5)
    else:
        sure, chosen = best.probability, (best.label,)
    return AggregatedLabels(
        labels=chosen,
        probabilities=tuple(aggregates),
        best_slice=best.best_slice,
        abstained=abstained or abstains(sure, threshold=min_confidence),
    )


Answer = TypeVar("Answer")


def _counted(slices: Sequence[tuple[int, Answer, bool]]) -> tuple[list[tuple[int, Answer]], bool]:
    """Return the slices that do not abstain, or all where all do, and whether all do."""
    sure = [(index, answer) for index, answer, abstained in slices if not abstained]
    return (sure, False) if sure else ([(index, answer) for index, answer, _ in slices], True)


def _abstains(answer: AnyClassification, number: int) -> bool:
    """Return whether a slice abstains from the label of this number."""
    if not isinstance(answer, MultiLabelResponse):
        return answer.abstained
    is_unlike = is_flagged(answer.unlike_training) and not answer.provenance.allow_unlike_training
    return is_unlike or answer.probabilities[number].abstained


def _confidence(answer: VQAResponse) -> float:
    return answer.confidence.value if answer.confidence else 0.0


def _normalised(answer: str) -> str:
    return answer.casefold().strip(string.whitespace + string.punctuation)
