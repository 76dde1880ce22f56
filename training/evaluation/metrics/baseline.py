"""Predict without the image: the most frequent answer of the train split."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from medmoe.training.data.sample import Sample


def majority_answers(
    train: Iterable[Sample], *, test: Sequence[Sample], by_question_type: bool = False
) -> dict[str, str]:
    """Return by test id the most frequent train answer of the same dataset, kind and answer type.

    With `by_question_type` also of the same question type, which is stronger where the type gives the answer away.
    Where train lacks such a group, the next wider one counts; a dataset without train has no entries.
    """
    counts: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
    for sample in train:
        for key in _keys(sample, by_question_type=by_question_type):
            counts[key][_spelling(sample)] += 1
    # Ties go to the first in the alphabet, so that file order decides nothing.
    winners = {key: min(found, key=lambda answer: (-found[answer], answer)) for key, found in counts.items()}
    answers = {}
    for sample in test:
        known = [key for key in _keys(sample, by_question_type=by_question_type) if key in winners]
        if known:
            answers[sample.id] = winners[known[0]]
    return answers


def _keys(sample: Sample, *, by_question_type: bool) -> list[Hashable]:
    """Return the groups of a sample, from the narrowest to the widest."""
    dataset = (sample.dataset, sample.kind)
    groups: list[Hashable] = [(*dataset, sample.answer_type), dataset]
    return [(*dataset, sample.answer_type, sample.question_type), *groups] if by_question_type else groups


def _spelling(sample: Sample) -> str:
    """Return labels as they are, and free text in lower case: "Yes" and "yes" are one answer."""
    return sample.answer if sample.kind == "classification" else sample.answer.strip().lower()
