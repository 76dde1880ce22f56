"""Bind the directory of a run to one recipe."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from medmoe.model.errors import ConfigError
from medmoe.training.atomic_file import write_atomically

RECIPE_FILE, REPORT_FILE = "recipe.json", "report.json"
_SHOWN, _LONGEST = 3, 40


def claim_directory(directory: Path, recipe: str, *, made_of: str = "recipe") -> None:
    """Create `directory` and write `recipe` into it; stages of two recipes must not mix.

    Raises ConfigError naming what differs when it already holds a run of another; `made_of` says in the message what a
    recipe consists of.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / RECIPE_FILE
    if path.exists() and (begun := path.read_text()) != recipe:
        shown = "; ".join(islice(_differences(_parsed(begun), _parsed(recipe)), _SHOWN))
        raise ConfigError(
            f"{directory} holds a run of another {made_of}{f' ({shown})' if shown else ''}; remove it, or choose "
            "another --output"
        )
    write_atomically(path, recipe)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Yield the fields in which two recipes differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from _differences(one.get(key), other.get(key), f"{name}.{key}".removeprefix("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from _differences(first, second, f"{name}.{number}")
    elif one != other:
        yield f"{name} {_shortened(one)} there, {_shortened(other)} here"


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
