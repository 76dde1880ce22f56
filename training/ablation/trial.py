"""Train one method with one seed from the base, evaluate it, and keep its result."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medmoe.model.errors import ConfigError
from medmoe.model.inspection.inspect import inspect_checkpoint
from medmoe.training.ablation.budget import last_stage
from medmoe.training.atomic_file import write_atomically
from medmoe.training.evaluation.prediction import Prediction
from medmoe.training.lora.config import AnyRunConfig, LoRARunConfig
from medmoe.training.lora.pipeline import LoRARun
from medmoe.training.pipeline import Run
from medmoe.training.run_directory import REPORT_FILE

RESULT_FILE = "result.json"
Answer = Callable[[Path], Iterable[Prediction]]
"""A checkpoint directory to its predictions on everything that is evaluated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Hold the costs and answers of one method with one seed."""

    method: str
    seed: int | None
    """None: nothing was trained."""
    recipe_sha256: str | None
    """Digest of the configuration, budget and seed included."""
    trained: int
    """Parameters that the last stage moved."""
    activated: int
    """Parameters that one token passes through, vision tower and projector included."""
    total: int
    steps: int
    seconds: float
    """Duration of the last stage, without what comes before it, such as a router's own training."""
    answers: Mapping[str, str]
    """The answer's text, or the label, by sample id."""


def untrained(base: Path, *, directory: Path, answer: Answer) -> Trial:
    """Return the base as it is, the row that every method must beat. Raises as `answer` does."""
    found = _read(directory, recipe=None)
    return found or _finished(base, directory=directory, answer=answer, method="base", seed=None, config=None, log={})


def trial(
    method: str, config: AnyRunConfig, *, base: Path, data: Path, directory: Path, features: Path, answer: Answer
) -> Trial:
    """Train `config` in `directory` unless its result is there.

    Raises ConfigError when the result is that of another version of the recipe, and what training raises.
    """
    found = _read(directory, recipe=_digest(config))
    if found is not None:
        return found
    if isinstance(config, LoRARunConfig):
        checkpoint = LoRARun(config, base=base, data=data, directory=directory, features=features)()
    else:
        checkpoint = Run(config, base=base, data=data, directory=directory, features=features)()
    report = json.loads((directory / REPORT_FILE).read_text())
    # An adapter's run has one stage, whose log is the report.
    log = report.get(last_stage(config).name, report)
    return _finished(
        checkpoint, directory=directory, answer=answer, method=method, seed=config.seed, config=config, log=log
    )


def _finished(
    checkpoint: Path,
    *,
    directory: Path,
    answer: Answer,
    method: str,
    seed: int | None,
    config: AnyRunConfig | None,
    log: Mapping[str, Any],
) -> Trial:
    shape = inspect_checkpoint(checkpoint, digests=False)
    added = 0 if shape.adapter is None else shape.adapter.parameters
    result = Trial(
        method=method,
        seed=seed,
        recipe_sha256=None if config is None else _digest(config),
        trained=log.get("trainable_parameters", 0),
        activated=shape.parameters.activated + added,
        total=shape.parameters.total + added,
        steps=log.get("steps", 0),
        seconds=log.get("seconds", 0.0),
        answers={prediction.id: prediction.text for prediction in answer(checkpoint)},
    )
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / RESULT_FILE, json.dumps(asdict(result), indent=1) + "\n")
    return result


def _read(directory: Path, *, recipe: str | None) -> Trial | None:
    path = directory / RESULT_FILE
    if not path.exists():
        return None
    try:
        found = Trial(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not the result of a trial; remove it, and the trial is finished again") from error
    if found.recipe_sha256 != recipe:
        raise ConfigError(f"{path} is the result of another version of its recipe; choose another --output")
    return found


def _digest(config: AnyRunConfig) -> str:
    return hashlib.sha256(config.to_json().encode()).hexdigest()
