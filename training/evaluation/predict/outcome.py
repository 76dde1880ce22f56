"""Judge one sample's prediction."""

from dataclasses import dataclass

from medmoe.training.data.sample import AnswerType, Kind, Sample
from medmoe.training.evaluation.metrics.scores import is_correct
from medmoe.training.evaluation.prediction import Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    id: str
    dataset: str
    kind: Kind
    modality: str | None
    answer_type: AnswerType | None
    question_type: str | None
    prediction: str
    reference: str
    correct: bool
    """Strictly: the label itself, or the reference answer after normalisation of both."""
    confidence: float | None
    probabilities: dict[str, float] | None


def outcome(sample: Sample, prediction: Prediction) -> Outcome:
    shares = prediction.probabilities
    return Outcome(
        id=sample.id,
        dataset=sample.dataset,
        kind=sample.kind,
        modality=sample.modality,
        answer_type=sample.answer_type,
        question_type=sample.question_type,
        prediction=prediction.text,
        reference=sample.answer,
        correct=is_correct(sample, prediction),
        confidence=prediction.confidence,
        probabilities=None if shares is None else dict(shares),
    )
