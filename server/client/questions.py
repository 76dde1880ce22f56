"""Define the typed questions of `decisions`, which are answered with probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Predicate:
    """A question to which yes or no is the answer."""

    instructions: str
    name: str | None = None
    """Returned with the answer."""

    def document(self) -> dict[str, Any]:
        """Return the question as the service reads it."""
        return _document("predicate", self)


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with options; True and False are the answers yes and no."""

    instructions: str
    """Empty for the checkpoint's own question, for which it may have a calibration."""
    choices: Sequence[str | bool]
    name: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the question as the service reads it."""
        return _document("choice", self) | {"choices": [{"value": value} for value in self.choices]}


@dataclass(frozen=True, slots=True)
class Score:
    """A question with levels in ascending order; the first has the value 0."""

    instructions: str
    levels: Sequence[str]
    name: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the question as the service reads it."""
        return _document("score", self) | {"levels": [{"label": label} for label in self.levels]}


Question: TypeAlias = Predicate | Choice | Score


def _document(kind: str, question: Question) -> dict[str, Any]:
    named = {} if question.name is None else {"name": question.name}
    return {"type": kind, "instructions": question.instructions, **named}
