"""What a reader sees of a text, and what it may cost to find out."""

import time

import pytest
from pydantic import TypeAdapter, ValidationError

from medmoe.server.schemas.classify import Labels
from medmoe.server.schemas.inference import MAX_LABEL_CHARS, Question, is_blank, visible

SIZE = 200_000


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ar\u00e9a", "Are\u0301a"), ("C\u200dT", "CT"), (" a\x07b\t", "ab"), ("o\u0315\u0300", "o\u0300\u0315")],
)
def test_texts_that_look_the_same_are_the_same(one: str, other: str) -> None:
    assert visible(one) == visible(other)


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\x1c", "\x7f" * SIZE, "\u200b \u2029" * SIZE])
def test_a_text_that_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(f"{text}?")
    with pytest.raises(ValidationError):
        TypeAdapter(Question).validate_python(text)


@pytest.mark.parametrize(
    "text", ["a" + "\u0315\u0300" * SIZE, "a" + "\u0315" * SIZE + "\u0300" * SIZE, "\u200b" * SIZE]
)
def test_no_text_costs_more_than_its_length(text: str) -> None:
    """Ordering the marks after one letter took 100 s."""
    begun = time.process_time()
    visible(text)
    is_blank(text)
    assert time.process_time() - begun < 2


def test_labels_that_no_deployment_allows_are_not_compared() -> None:
    long = "a" + "\u0315\u0300" * SIZE * 10
    begun = time.process_time()
    TypeAdapter(Labels).validate_python((long, f"{long}!", "a" * MAX_LABEL_CHARS))
    assert time.process_time() - begun < 1
