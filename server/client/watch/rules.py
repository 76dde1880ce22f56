"""Read the rules of a watch from a TOML file."""

import tomllib
from collections.abc import Iterable
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from medmoe.client.errors import InvalidInput

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Rule(BaseModel):
    """Describe which images or series to ask about, and what."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    source: Text
    """DICOMweb source of the service."""
    since: date
    """Earliest date of a study."""
    modality: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,16}$")] | None = None
    """Modality of a series."""
    description: Text | None = None
    """Text that the description of the study or of the series contains; letter case does not matter."""
    question: Text | None = None
    labels: Annotated[tuple[Text, ...], Field(strict=False, min_length=2)] | None = None
    instances: Literal["first", "middle", "all"] = "middle"
    """Images of a series, in the order of their instance numbers."""
    limit: Annotated[int, Field(ge=1)] = 10
    """With instances "all": the largest number of images of a series; the first ones are taken."""
    series: bool = False
    """Whether to ask about each series as a whole instead of its images."""
    slices: Annotated[int, Field(ge=1)] | None = None
    """With series: number of slices to look at, evenly spread."""
    aggregate: Literal["most_confident", "majority", "mean", "max"] | None = None
    """With series: how one result is made of those of the slices."""
    finding: Text | None = None
    """With series: label of `labels` that a series has as soon as one slice shows it."""
    store: bool = False
    """Whether to store each answer's structured report in the source."""
    window: Text | None = None
    min_confidence: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _require_one_request(self) -> Self:
        if (self.question is None) == (self.labels is None):
            raise ValueError("it needs a question or labels, and not both")
        for key in ("instances", "limit") if self.series else ("slices", "aggregate", "finding"):
            if key in self.model_fields_set:
                raise ValueError(f"{key} goes with series = {'false' if self.series else 'true'}")
        rules = ("most_confident", "majority") if self.labels is None else ("mean", "max")
        if self.aggregate is not None and self.aggregate not in rules:
            raise ValueError(
                f"aggregate is {' or '.join(rules)} for {'a question' if self.labels is None else 'labels'}"
            )
        if self.finding is not None and (self.finding not in (self.labels or ()) or self.aggregate == "mean"):
            raise ValueError("finding is one of labels, and goes with aggregate max")
        return self

    @property
    def request(self) -> dict[str, Any]:
        """Return what identifies the request about each image or series."""
        of_series = {"slices", "aggregate", "finding"} if self.series else set()
        return self.model_dump(
            include={"source", "question", "labels", "store", "window", "min_confidence"} | of_series
        )


_KEYS = tuple(name for name in Rule.model_fields if name != "name")


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Read rules, one table each. Raises InvalidInput, which names the rule and the key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is not TOML: {error}") from error
    if not document:
        raise InvalidInput(f"{path} has no rule; a rule begins with its name in brackets, such as [chest-ct]")
    return tuple(_rule(name, entries, path=path) for name, entries in document.items())


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question for the name that is most like `name`, or nothing if there is none."""
    found = get_close_matches(name, list(known), 1, 0)
    return f"; did you mean {found[0]}?" if found else ""


def _rule(name: str, entries: Any, *, path: Path) -> Rule:
    if not isinstance(entries, dict):
        raise InvalidInput(f"{path}: {name} is outside a rule; a rule begins with its name in brackets")
    # Checked first, because a misspelt key is also a missing one.
    for key in entries:
        if key not in _KEYS:
            raise InvalidInput(f"{path}, [{name}]: {key} is no key of a rule{nearest(key, _KEYS)}")
    try:
        return Rule(name=name, **entries)
    except ValidationError as error:
        raise InvalidInput(f"{path}, [{name}]: {_problem(error)}") from error


def _problem(error: ValidationError) -> str:
    """Describe the first problem in one line."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not first["loc"]:
        return message
    key = str(first["loc"][0])
    if first["type"] == "missing":
        return f"{key} is missing"
    if key == "since":
        return "since should be a date without quotation marks, such as 2026-05-01"
    if key == "modality":
        return "modality should be capital letters such as CT"
    hint = ""
    if key == "instances" and isinstance(first["input"], str):
        hint = nearest(first["input"], ("first", "middle", "all"))
    return f"{key} {message}{hint}"
