"""Build a report from samples and predictions."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Kind, Sample
from medmoe.training.evaluation.metrics.baseline import majority_answers
from medmoe.training.evaluation.metrics.confusion import Confusion, confusion
from medmoe.training.evaluation.metrics.reliability import Reliability, reliability
from medmoe.training.evaluation.metrics.risk_coverage import RiskCoverage, risk_coverage
from medmoe.training.evaluation.metrics.scores import Scorer, Scores, is_correct
from medmoe.training.evaluation.predict.linear_probe import PROBE
from medmoe.training.evaluation.predict.outcome import Outcome, outcome
from medmoe.training.evaluation.prediction import Prediction
from medmoe.training.evaluation.report.routing_table import RoutingTable, routing_table

BLANKED, MAJORITY = "question alone, image blanked", "majority"
_UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """Hold the checkpoint's calibration of the same confidences."""

    reliability: Reliability
    scores: Scores
    """The proper scores: Brier and negative log-likelihood."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Hold one dataset's results for one kind of task."""

    dataset: str
    kind: Kind
    n: int
    images: int
    untyped: int
    """VQA samples without an answer type: no metric covers them."""
    in_train: int
    """Samples whose image is in the train split too, by its bytes or by the dataset's own word."""
    cut: int
    """Answers that had no end within the permitted tokens."""
    scores: Scores
    subsets: dict[str, Scores]
    """The same scores on the parts that are fairer than the official split: images not in train, no near twin there."""
    modalities: dict[str, Scores]
    question_types: dict[str, Scores]
    baselines: dict[str, Scores]
    """What is reached without looking at the image."""
    reliability: Reliability | None
    """None where some confidence is unknown; so too `risk_coverage`."""
    calibrated: Calibrated | None
    """None where the checkpoint has no calibration for this kind, or `scores` are calibrated already."""
    risk_coverage: RiskCoverage | None
    confusion: Confusion | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    sections: tuple[Section, ...]
    routing: RoutingTable
    seed: int
    resamples: int
    outcomes: tuple[Outcome, ...]

    def to_json(self, **facts: Any) -> str:
        """Return everything, with `facts` about how it came about in front."""
        return json.dumps({"format_version": 1, **facts, **asdict(self)}, indent=2, allow_nan=False) + "\n"


def build_report(
    samples: Sequence[Sample],
    *,
    predictions: Mapping[str, Prediction],
    without_image: Mapping[str, Prediction] | None = None,
    calibrated: Mapping[str, Prediction] | None = None,
    probe: Mapping[str, Prediction] | None = None,
    train: Sequence[Sample] = (),
    shared: Collection[str] = (),
    scorer: Scorer | None = None,
) -> Report:
    """Score `predictions` (by sample id) against `samples`, a section for each dataset and kind.

    `without_image` are the same model's predictions on a blank image; `calibrated` its predictions on the samples
    with calibrated confidences, of the kinds that have a calibration; `probe` a linear probe's, of datasets that have
    one. `train` feeds the baselines; `shared` are ids of samples whose image was found in train (`shared_images`).

    Raises DataError when an id occurs twice, a prediction is missing or belongs to no sample, or a sample is a
    caption, which no metric here scores. Upstream zips by position and lets the shorter list decide.
    """
    scorer = scorer or Scorer()
    _check(samples, predictions=predictions)
    if without_image is not None:
        _check(samples, predictions=without_image)
    leaked = {sample.id for sample in samples if sample.image_in_train} | set(shared)
    groups: defaultdict[tuple[str, Kind], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.dataset, sample.kind].append(sample)
    sections = []
    for group in groups.values():
        blind = {BLANKED: without_image} if without_image is not None else {}
        baselines = blind | _majorities(group, train=train)
        if probe and all(sample.id in probe for sample in group):
            baselines[PROBE] = probe
        sections.append(
            _section(
                group,
                predictions=predictions,
                baselines=baselines,
                calibrated=_calibrated(group, calibrated or {}, scorer=scorer),
                leaked=leaked,
                scorer=scorer,
            )
        )
    return Report(
        sections=tuple(sections),
        routing=routing_table(samples, predictions=predictions),
        seed=scorer.seed,
        resamples=scorer.resamples,
        outcomes=tuple(outcome(sample, predictions[sample.id]) for sample in samples),
    )


def _check(samples: Sequence[Sample], *, predictions: Mapping[str, Prediction]) -> None:
    ids = [sample.id for sample in samples]
    known = set(ids)
    if len(known) != len(ids):
        raise DataError(f"{len(ids) - len(known)} sample ids occur more than once")
    if missing := sorted(known - predictions.keys()):
        raise DataError(f"{len(missing)} of {len(ids)} samples have no prediction, {missing[0]} among them")
    if foreign := sorted(predictions.keys() - known):
        raise DataError(f"{len(foreign)} predictions belong to no sample, {foreign[0]} among them")
    if captions := [sample.id for sample in samples if sample.kind == "caption"]:
        raise DataError(f"{len(captions)} samples are captions, which are not scored, {captions[0]} among them")


def _majorities(samples: Sequence[Sample], *, train: Sequence[Sample]) -> dict[str, Mapping[str, Prediction]]:
    answers = {MAJORITY: majority_answers(train, test=samples)}
    if samples[0].kind == "vqa":
        answers["majority by question type"] = majority_answers(train, test=samples, by_question_type=True)
    return {
        name: {id_: Prediction(id=id_, text=text) for id_, text in found.items()}
        for name, found in answers.items()
        if found
    }


def _section(
    samples: Sequence[Sample],
    *,
    predictions: Mapping[str, Prediction],
    baselines: Mapping[str, Mapping[str, Prediction]],
    calibrated: Calibrated | None,
    leaked: Collection[str],
    scorer: Scorer,
) -> Section:
    first = samples[0]

    def scored(parts: Mapping[str, Sequence[Sample]]) -> dict[str, Scores]:
        """Return the parts that differ from the whole and are not empty."""
        chosen = {name: part for name, part in parts.items() if 0 < len(part) < len(samples)}
        return {name: scorer(part, predictions=predictions) for name, part in chosen.items()}

    confidences, correct = _confidences(samples, predictions)
    return Section(
        dataset=first.dataset,
        kind=first.kind,
        n=len(samples),
        images=len({sample.image for sample in samples}),
        untyped=sum(sample.answer_type is None for sample in samples) if first.kind == "vqa" else 0,
        in_train=sum(sample.id in leaked for sample in samples),
        cut=sum(predictions[sample.id].cut for sample in samples),
        scores=scorer(samples, predictions=predictions),
        subsets=scored(_subsets(samples, leaked=leaked)),
        modalities=scored(_by(samples, "modality")),
        question_types=scored(_by(samples, "question_type")),
        baselines={name: scorer(samples, predictions=found) for name, found in baselines.items()},
        reliability=reliability(confidences, correct) if confidences else None,
        calibrated=calibrated,
        risk_coverage=risk_coverage(confidences, correct) if confidences else None,
        confusion=confusion(samples, predictions=predictions) if first.kind == "classification" else None,
    )


def _confidences(
    samples: Sequence[Sample], predictions: Mapping[str, Prediction]
) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    """Return each confidence and whether its answer is right; nothing at all where one is unknown."""
    known = [(predictions[sample.id].confidence, is_correct(sample, predictions[sample.id])) for sample in samples]
    said = tuple(confidence for confidence, _ in known if confidence is not None)
    return (said, tuple(right for _, right in known)) if len(said) == len(known) else ((), ())


def _calibrated(
    samples: Sequence[Sample], predictions: Mapping[str, Prediction], *, scorer: Scorer
) -> Calibrated | None:
    if any(sample.id not in predictions for sample in samples):
        return None
    confidences, correct = _confidences(samples, predictions)
    if not confidences:
        return None
    scores = scorer(samples, predictions=predictions)
    proper = ("brier", "nll", "confidence_brier", "confidence_nll")
    return Calibrated(
        reliability=reliability(confidences, correct),
        scores={name: scores[name] for name in proper if name in scores},
    )


def _subsets(samples: Sequence[Sample], *, leaked: Collection[str]) -> dict[str, list[Sample]]:
    parts = {"image not in train": [sample for sample in samples if sample.id not in leaked]}
    if any(sample.near_twin_in_train for sample in samples):
        parts["no near twin in train"] = [s for s in samples if s.id not in leaked and not s.near_twin_in_train]
    return parts


def _by(samples: Sequence[Sample], field: str) -> dict[str, list[Sample]]:
    parts: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        parts[getattr(sample, field) or _UNKNOWN].append(sample)
    return dict(sorted(parts.items(), key=lambda item: (item[0] == _UNKNOWN, item[0])))
