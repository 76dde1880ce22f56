"""Build the response of `/v1/series` from its slices."""

from collections.abc import Sequence
from typing import Any

from medmoe.server.inference.confidence import confidence_threshold
from medmoe.server.inference.context import InferenceContext
from medmoe.server.inference.series.aggregate import aggregate_answers, aggregate_labels
from medmoe.server.schemas.inference import Timings
from medmoe.server.schemas.series import (
    AnsweredSlice,
    AnswerRule,
    ClassifiedSlice,
    LabelRule,
    SeriesAnswer,
    SeriesClassification,
    SeriesDescription,
    SeriesFields,
)


def series_response(
    context: InferenceContext,
    fields: SeriesFields,
    *,
    slices: Sequence[AnsweredSlice | ClassifiedSlice],
    description: SeriesDescription,
    id_: str,
    timings: Timings,
) -> SeriesAnswer | SeriesClassification:
    """Return the response; at least one of the slices has an answer."""
    common: dict[str, Any] = {
        "id": id_,
        "model": context.checkpoint.config.name,
        "series": description,
        "timings": timings,
    }
    if fields.labels is None:
        answered = tuple(one for one in slices if isinstance(one, AnsweredSlice))
        rule: AnswerRule = "majority" if fields.aggregate == "majority" else "most_confident"
        answer = aggregate_answers(answered, rule)
        return SeriesAnswer(
            **common,
            answer=answer.answer,
            rule=rule,
            best_slice=answer.best_slice,
            agreement=answer.agreement,
            abstained=answer.abstained,
            slices=answered,
        )
    classified = tuple(one for one in slices if isinstance(one, ClassifiedSlice))
    several = fields.mode == "multi_label"
    by_largest = fields.aggregate is None and (several or fields.finding is not None)
    label_rule: LabelRule = "max" if fields.aggregate == "max" or by_largest else "mean"
    found = aggregate_labels(
        fields.labels,
        classified,
        label_rule,
        several=several,
        finding=fields.finding,
        min_confidence=confidence_threshold(fields.min_confidence, context.settings),
    )
    return SeriesClassification(
        **common,
        labels=found.labels,
        rule=label_rule,
        probabilities=found.probabilities,
        best_slice=found.best_slice,
        abstained=found.abstained,
        slices=classified,
    )
