"""Labels in other words: the truth stays the truth, the same draw comes again, and held-out words stay unseen."""

import random
from collections import Counter
from pathlib import Path

import pytest

from medmoe.training.data.sample import Sample
from medmoe.training.data.wordings.label_words import COARSE, HELD_OUT, SPELLINGS
from medmoe.training.data.wordings.phrasing import NONE, paraphrased, with_wordings

BRAIN = ("glioma", "meningioma", "no tumor", "pituitary")


def labelled(number: int = 0, labels: tuple[str, ...] = BRAIN, answer: str | None = None) -> Sample:
    return Sample(
        id=f"set/{number}",
        dataset="set",
        image=Path(f"/{number}.png"),
        split="train",
        answer=answer or labels[number % len(labels)],
        labels=labels,
    )


def many(count: int = 400, labels: tuple[str, ...] = BRAIN) -> list[Sample]:
    return [labelled(number, labels) for number in range(count)]


def meanings(sample: Sample, labels: frozenset[str]) -> set[str]:
    """The labels that a word can stand for."""
    found = {label for label in labels if sample.answer in (label, *SPELLINGS.get(labels, {}).get(label, ()))}
    for grouping in COARSE.get(labels, ()):
        for words, group in grouping:
            found |= group if sample.answer in words else set()
    return found


def test_a_sample_keeps_its_own_question_and_gets_others_beside_it() -> None:
    samples = with_wordings(many(3), count=2, seed=0)
    assert len(samples) == 9
    assert samples[::3] == many(3)
    assert len({sample.id for sample in samples}) == 9
    assert with_wordings(many(3), count=2, seed=0) == samples
    assert with_wordings(many(3), count=2, seed=1) != samples


def test_a_repeated_sample_is_asked_in_other_ways() -> None:
    first, second = (with_wordings([labelled()] * 2, count=3, seed=0)[start + 1 : start + 4] for start in (0, 4))
    assert first != second


@pytest.mark.parametrize("labels", SPELLINGS)
def test_the_answer_still_means_the_truth(labels: frozenset[str]) -> None:
    originals = many(300, tuple(sorted(labels)))
    reworded = with_wordings(originals, count=1, seed=3)
    for original, sample in zip(originals, reworded[1::2], strict=True):
        if sample.answer in ("Yes", "No"):
            named = sample.question.removeprefix("Does the picture contain ").removesuffix("?")  # type: ignore[union-attr]
            right = named in (original.answer, *SPELLINGS[labels][original.answer])
            assert right or sample.answer == "No"
        elif sample.answer == NONE:
            assert original.answer not in sample.labels
        else:
            assert original.answer in meanings(sample, labels)


def test_yes_is_about_as_frequent_as_no() -> None:
    answers = Counter(sample.answer for sample in with_wordings(many(2000), count=1, seed=0)[1::2])
    assert 0.8 < answers["Yes"] / answers["No"] < 1.25


def test_labels_that_nobody_has_words_for_are_offered_in_parts_and_other_sentences() -> None:
    reworded = with_wordings(many(100, ("a", "b", "c")), count=1, seed=0)[1::2]
    assert any(sample.question for sample in reworded)
    assert any(len(sample.labels) == 2 for sample in reworded)
    assert any(NONE in sample.labels for sample in reworded)


@pytest.mark.parametrize("labels", HELD_OUT)
def test_words_that_are_kept_out_of_training_stay_out(labels: frozenset[str]) -> None:
    trained = {word for words in SPELLINGS[labels].values() for word in words} | labels
    trained |= {word for grouping in COARSE.get(labels, ()) for words, _ in grouping for word in words}
    assert len(HELD_OUT[labels]) == 3
    for wording in HELD_OUT[labels]:
        assert set(wording) == labels
        assert not set(wording.values()) & trained


def test_a_paraphrase_renames_every_label() -> None:
    sample = labelled(answer="glioma")
    found = paraphrased(sample, 1)
    assert found is not None
    assert found.answer == "glial neoplasm"
    assert len(set(found.labels)) == 4
    assert paraphrased(labelled(0, ("a", "b")), 0) is None
    assert paraphrased(sample, 3) is None


def test_no_two_labels_of_a_set_share_a_word() -> None:
    drawn = random.Random(0)
    for labels, spellings in SPELLINGS.items():
        for _ in range(20):
            words = [drawn.choice((label, *spellings[label])) for label in labels]
            assert len(set(words)) == len(words)
