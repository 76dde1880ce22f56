"""Upstream's metrics with their quirks, as worked examples, and the strict ones beside them."""

import doctest
import math

import pytest

from medmoe.training.evaluation.metrics import answer_normalizer, vqa_metrics
from medmoe.training.evaluation.metrics.answer_normalizer import normalize_answer
from medmoe.training.evaluation.metrics.vqa_metrics import (
    bleu,
    closed_accuracy_substring,
    exact_match_share,
    open_recall,
    strict_accuracy,
    word_overlap,
)


@pytest.mark.parametrize("module", [answer_normalizer, vqa_metrics])
def test_worked_examples_of_the_docstrings(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The lung", "lung"),
        ("left-lung", "left lung"),
        ("left- lung-lobe", "left lunglobe"),  # a sign beside a space once is deleted everywhere
        ("yes,no", "yes no"),
        ("yes, no", "yes no"),
        ("1,000", "1000"),
        ("1,000 left-lung", "1000 leftlung"),  # digit-comma-digit anywhere deletes every sign
        ("2.5 cm.", "2.5 cm"),
        (".5 and 1.", ".5 and 1"),
        ("a:b", "a:b"),  # colons are not among the signs
        ("patient's", "patient's"),
        ("None and Ten", "0 and 10"),
        ("eleven", "eleven"),
        ("dont couldntve couldnt've", "don't couldntve couldn't've"),
        ("somebody'd", "somebodyd"),
        ("hes shes", "he's shes"),
        ("im ive", "im ive"),  # upstream's capitalised entries can never match lower-cased words
        ("a an the", ""),
    ],
)
def test_normaliser_quirks(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


def test_only_32_periods_are_removed() -> None:
    assert normalize_answer("x" + "." * 40) == "x" + "." * 8


def test_repeating_a_right_word_raises_recall() -> None:
    once = open_recall("left", reference="left lung")
    twice = open_recall("left left", reference="left lung")
    assert (once, twice) == (1 / 2, 2 / 3)


def test_overlap_counts_wrong_and_missing_words() -> None:
    overlap = word_overlap("left lung mass", reference="left lung upper lobe")
    assert (overlap.precision, overlap.recall) == (2 / 3, 2 / 4)
    assert overlap.f1 == pytest.approx(4 / 7)


@pytest.mark.parametrize(("prediction", "reference"), [("", "lung"), ("lung", "the"), ("the", "lung")])
def test_an_empty_side_scores_nothing(prediction: str, reference: str) -> None:
    assert open_recall(prediction, reference=reference) == 0
    assert exact_match_share(prediction, reference=reference) == 0


def test_exact_match_share_is_not_equality() -> None:
    assert exact_match_share("lung", reference="left upper lung") == 1.0
    assert exact_match_share("the left lung mass", reference="left lung") == 2 / 3


@pytest.mark.parametrize("prediction", ["normal", "abnormal", "I do not know", "NO"])
def test_no_anywhere_counts_as_closed_correct(prediction: str) -> None:
    assert closed_accuracy_substring(prediction, reference="No") == 1


def test_closed_substring_is_not_normalised() -> None:
    assert closed_accuracy_substring("chest x ray", reference="x-ray") == 0


def test_strict_accuracy_normalises_and_then_compares() -> None:
    assert strict_accuracy("The left lung.", reference="left lung") == 1
    assert strict_accuracy("two", reference="2") == 1
    assert strict_accuracy("normal", reference="no") == 0
    assert strict_accuracy("no, it is normal", reference="no") == 0


def test_strict_accuracy_of_an_answer_that_normalises_to_nothing() -> None:
    assert strict_accuracy("A", reference="a") == 1
    assert strict_accuracy("", reference="a") == 0


@pytest.mark.parametrize(
    ("prediction", "reference", "n", "expected"),
    [
        ("the left lung", "the left lung", 3, 1.0),
        ("left left left", "left lung", 1, 1 / 3),  # clipped at the reference's count
        ("the left lung", "the left lobe", 2, 1 / 2),
        ("the left lung", "the left lobe", 3, 0.1),  # smoothing method 1
        ("lung", "lung", 2, 0.1),
        ("left lung", "the left lung lobe", 1, math.exp(-1)),  # brevity penalty
        ("right", "left", 1, 0.0),
        ("", "left", 1, 0.0),
        ("Left.", "left", 1, 0.0),  # raw words: no normalisation
    ],
)
def test_bleu(prediction: str, reference: str, n: int, expected: float) -> None:
    assert bleu(prediction, reference=reference, n=n) == pytest.approx(expected)
