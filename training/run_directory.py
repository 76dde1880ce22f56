"""Bind the directory of a run to one recipe and to one process at a time."""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from medmoe.model.errors import ConfigError
from medmoe.model.lora.adapter_config import BaseModelIdentity
from medmoe.training.atomic_file import staging_of, write_atomically

log = logging.getLogger(__name__)
RECIPE_FILE, REPORT_FILE = "recipe.json", "report.json"
_SHOWN, _LONGEST = 3, 40


@contextmanager
def sole_run(directory: Path) -> Iterator[None]:
    """Create `directory` and hold its lock, which the kernel releases when the process ends.

    Raises ConfigError when another process has it. A file system without locks has none.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another process is writing to {directory}; wait for its end, or choose another --output"
            ) from error
        except OSError as error:
            log.debug("%s cannot be locked: %s", directory, error)
        yield
    finally:
        os.close(descriptor)


def require_own(directory: Path) -> None:
    """Raise ConfigError where `directory`, which is removed after the run, holds files of something else."""
    recipe = directory / RECIPE_FILE
    if not recipe.exists() and any(entry != staging_of(recipe) for entry in directory.iterdir()):
        raise ConfigError(
            f"{directory} holds files of something else, and a run's working files there are removed at its end; move "
            "it away, or choose another --output"
        )


def claim_run(directory: Path, recipe: str, *, base: BaseModelIdentity | None) -> None:
    """Claim `directory` for a run of `recipe`, on the checkpoint `base` where it begins with one.

    Raises ConfigError as `claim_directory` does.
    """
    if base is None:
        claim_directory(directory, recipe)
        return
    claim = {"base": base.model_dump(), "recipe": json.loads(recipe)}
    claim_directory(directory, json.dumps(claim, indent=2) + "\n", made_of="recipe or base")


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
