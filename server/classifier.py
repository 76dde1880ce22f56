"""The exact likelihood of each label under the model; no text is generated, none is parsed.

Each label is a path of tokens that ends with end-of-sequence. The paths form a trie; one engine request per branching
point (and per step of a path) asks for the log-probabilities of its children only, so labels that begin alike share
the work and, through the engine's prefix cache, the image and the question are computed once.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from PIL import Image

from medmoe.model.calibration import LabelCalibration
from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import Engine, GenerationChunk, GenerationError, GenerationRequest, generation
from medmoe.server.errors import InvalidField

Path = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Classification:
    """Everything per label in the order the labels were given."""

    log_likelihoods: tuple[float, ...]
    probabilities: tuple[float, ...]
    best: int
    label_mass: float
    entropy: float
    """Nats."""
    margin: float
    steps: tuple[tuple[Path, GenerationChunk], ...]
    """The engine's last chunk at each trie node, by the answer tokens that lead to it; the root, (), comes first."""

    def through(self, calibration: LabelCalibration) -> Self:
        """The same with calibrated probabilities; likelihoods, and which label is best, stay the model's."""
        probabilities = calibration.apply(self.probabilities)
        entropy, margin = _spread(probabilities)
        return replace(self, probabilities=probabilities, entropy=entropy, margin=margin)


class Classifier:
    """Scores labels with one engine."""

    def __init__(self, engine: Engine, *, prompt: Prompt) -> None:
        self._engine = engine
        self._prompt = prompt

    def paths(self, labels: Sequence[str]) -> tuple[Path, ...]:
        """Each label's tokens, end-of-sequence included. Raises InvalidField when two labels are the same tokens."""
        paths = tuple(tuple(self._prompt.answer(label)) for label in labels)
        if len(set(paths)) != len(paths):
            raise InvalidField("labels must be distinct for the model", param="labels")
        return paths

    async def classify(
        self,
        paths: Sequence[Path],
        *,
        prompt_ids: Path,
        image: Image.Image,
        image_id: str,
        request_id: str,
        cache_salt: str | None = None,
    ) -> Classification:
        """Score `paths` after `prompt_ids`. Raises what the engine raises; the other engine requests are aborted."""
        children = _children(paths)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    prefix: group.create_task(
                        self._step(
                            GenerationRequest(
                                request_id=f"{request_id}-{number}",
                                prompt_ids=(*prompt_ids, *prefix),
                                image=image,
                                image_id=image_id,
                                cache_salt=cache_salt,
                                max_tokens=1,
                                logprob_token_ids=tuple(sorted(tokens)),
                            )
                        )
                    )
                    for number, (prefix, tokens) in enumerate(children.items())
                }
        except ExceptionGroup as failures:
            # One failed step fails the classification; which sibling failed too is of no use to anyone.
            raise _first(failures) from failures
        steps = {prefix: task.result() for prefix, task in tasks.items()}
        log_likelihoods = tuple(
            math.fsum(steps[path[:depth]].token_logprobs[path[depth]] for depth in range(len(path))) for path in paths
        )
        return _summarise(log_likelihoods, steps=tuple(steps.items()))

    async def _step(self, request: GenerationRequest) -> GenerationChunk:
        last: GenerationChunk | None = None
        async with generation(self._engine, request) as chunks:
            async for chunk in chunks:
                last = chunk
        if last is None or not set(request.logprob_token_ids) <= last.token_logprobs.keys():
            raise GenerationError("the engine did not return the log-probabilities it was asked for")
        return last


def steps(paths: Sequence[Path]) -> int:
    """Engine requests that scoring `paths` takes: the inner nodes of their trie."""
    return len(_children(paths))


def _children(paths: Sequence[Path]) -> dict[Path, set[int]]:
    """The trie as a table from each inner node to its next tokens, shortest prefixes first."""
    table: dict[Path, set[int]] = {}
    for path in paths:
        for depth, token in enumerate(path):
            table.setdefault(path[:depth], set()).add(token)
    return dict(sorted(table.items(), key=lambda item: len(item[0])))


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    error: Exception = failures
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _summarise(
    log_likelihoods: tuple[float, ...], *, steps: tuple[tuple[Path, GenerationChunk], ...]
) -> Classification:
    highest = max(log_likelihoods)
    if not math.isfinite(highest):
        raise GenerationError("the engine returned log-probabilities that are not finite")
    weights = [math.exp(value - highest) for value in log_likelihoods]
    total = math.fsum(weights)
    probabilities = tuple(weight / total for weight in weights)
    entropy, margin = _spread(probabilities)
    return Classification(
        log_likelihoods=log_likelihoods,
        probabilities=probabilities,
        best=probabilities.index(max(probabilities)),
        label_mass=math.fsum(math.exp(value) for value in log_likelihoods),
        entropy=entropy,
        margin=margin,
        steps=steps,
    )


def _spread(probabilities: Sequence[float]) -> tuple[float, float]:
    """Entropy in nats, and the distance between the two largest."""
    first, second = sorted(probabilities, reverse=True)[:2]
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0) + 0.0, first - second
