"""From samples and answers to a report: every dataset scored, sliced, and set beside answers without an image."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Kind, Sample
from medmoe.training.evaluation.baseline import majority_answers, majority_answers_by_question_type
from medmoe.training.evaluation.confusion import Confusion, confusion
from medmoe.training.evaluation.scores import Scorer, Scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One dataset's results for one kind of task."""

    dataset: str
    kind: Kind
    n: int
    images: int
    untyped: int
    """VQA samples without an answer type: no metric covers them."""
    in_train: int
    """Samples whose image is in the train split too, by its bytes or by the dataset's own word."""
    scores: Scores
    slices: dict[str, Scores]
    """The same scores on parts of the samples: each modality, images not in train, no near twin in train."""
    baselines: dict[str, Scores]
    confusion: Confusion | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    sections: tuple[Section, ...]
    seed: int
    resamples: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def build_report(
    samples: Sequence[Sample],
    *,
    answers: Mapping[str, str],
    train: Sequence[Sample] = (),
    shared: Collection[str] = (),
    scorer: Scorer | None = None,
) -> Report:
    """Score `answers` (text by sample id) against `samples`, a section for each dataset and kind.

    `train` feeds the baselines; `shared` are ids of samples whose image was found in train (`shared_images`).
    Raises DataError when an id occurs twice, an answer is missing, an answer belongs to no sample, or a sample is a
    caption, which no metric here scores. Upstream zips by position and lets the shorter list decide.
    """
    scorer = scorer or Scorer()
    _check(samples, answers=answers)
    leaked = {sample.id for sample in samples if sample.image_in_train} | set(shared)
    groups: defaultdict[tuple[str, Kind], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.dataset, sample.kind].append(sample)
    sections = [
        _section(group, answers=answers, train=train, leaked=leaked, scorer=scorer) for group in groups.values()
    ]
    return Report(sections=tuple(sections), seed=scorer.seed, resamples=scorer.resamples)


def _check(samples: Sequence[Sample], *, answers: Mapping[str, str]) -> None:
    ids = [sample.id for sample in samples]
    known = set(ids)
    if len(known) != len(ids):
        raise DataError(f"{len(ids) - len(known)} sample ids occur more than once")
    if missing := sorted(known - answers.keys()):
        raise DataError(f"{len(missing)} of {len(ids)} samples have no answer, {missing[0]} among them")
    if foreign := sorted(answers.keys() - known):
        raise DataError(f"{len(foreign)} answers belong to no sample, {foreign[0]} among them")
    if captions := [sample.id for sample in samples if sample.kind == "caption"]:
        raise DataError(f"{len(captions)} samples are captions, which are not scored, {captions[0]} among them")


def _section(
    samples: Sequence[Sample],
    *,
    answers: Mapping[str, str],
    train: Sequence[Sample],
    leaked: Collection[str],
    scorer: Scorer,
) -> Section:
    first = samples[0]
    score = scorer.vqa if first.kind == "vqa" else scorer.classification
    baselines = {"majority": majority_answers(train, test=samples)}
    if first.kind == "vqa":
        baselines["majority by question type"] = majority_answers_by_question_type(train, test=samples)
    return Section(
        dataset=first.dataset,
        kind=first.kind,
        n=len(samples),
        images=len({sample.image for sample in samples}),
        untyped=sum(sample.answer_type is None for sample in samples) if first.kind == "vqa" else 0,
        in_train=sum(sample.id in leaked for sample in samples),
        scores=score(samples, answers=answers),
        slices={name: score(part, answers=answers) for name, part in _slices(samples, leaked=leaked).items()},
        baselines={name: score(samples, answers=found) for name, found in baselines.items() if found},
        confusion=confusion(samples, answers=answers) if first.kind == "classification" else None,
    )


def _slices(samples: Sequence[Sample], *, leaked: Collection[str]) -> dict[str, list[Sample]]:
    """Parts that differ from the whole and are not empty."""
    modalities = sorted({sample.modality or "unknown" for sample in samples})
    parts = {f"modality {name}": [s for s in samples if (s.modality or "unknown") == name] for name in modalities}
    parts["image not in train"] = [sample for sample in samples if sample.id not in leaked]
    if any(sample.near_twin_in_train for sample in samples):
        parts["no near twin in train"] = [s for s in samples if s.id not in leaked and not s.near_twin_in_train]
    return {name: part for name, part in parts.items() if 0 < len(part) < len(samples)}
