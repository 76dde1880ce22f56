"""The exact likelihood of given answers under the model; no text is generated, none is parsed.

Each answer is a path of tokens. The paths after one prompt form a trie; one engine request per branching point (and per
step of a path) asks for the log-probabilities of its children only, so answers that begin alike share the work and,
through the engine's prefix cache, the image and the question are computed once.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from medmoe.server.engine.base import Engine, GenerationChunk, GenerationError, GenerationRequest, generation

Path = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringRequest:
    """A prompt, and the answers whose likelihoods after it are wanted."""

    prompt_ids: Path
    paths: tuple[Path, ...]
    """Distinct; none of them the beginning of another."""

    @property
    def children(self) -> dict[Path, set[int]]:
        """The trie as a table from each inner node to its next tokens, shortest prefixes first."""
        table: dict[Path, set[int]] = {}
        for path in self.paths:
            for depth, token in enumerate(path):
                table.setdefault(path[:depth], set()).add(token)
        return dict(sorted(table.items(), key=lambda item: len(item[0])))

    @property
    def steps(self) -> int:
        """Engine requests that it takes: the inner nodes of the trie."""
        return len(self.children)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScore:
    """An inquiry's result."""

    inquiry: ScoringRequest
    log_likelihoods: tuple[float, ...]
    """Of each path, natural logarithm."""
    steps: tuple[tuple[Path, GenerationChunk], ...]
    """The engine's last chunk at each trie node, by the answer tokens that lead to it; the root, (), comes first."""


class LabelScorer:
    """Scores answers with one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def score(
        self,
        inquiries: Sequence[ScoringRequest],
        *,
        image: Image.Image,
        image_id: str,
        request_id: str,
        cache_salt: str | None = None,
    ) -> tuple[LabelScore, ...]:
        """Every inquiry's likelihoods. Raises what the engine raises; the other engine requests are aborted."""
        tries = [inquiry.children for inquiry in inquiries]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    (number, prefix): group.create_task(
                        self._step(
                            GenerationRequest(
                                request_id=f"{request_id}-{number}-{node}",
                                prompt_ids=(*inquiries[number].prompt_ids, *prefix),
                                image=image,
                                image_id=image_id,
                                cache_salt=cache_salt,
                                max_tokens=1,
                                logprob_token_ids=tuple(sorted(tokens)),
                            )
                        )
                    )
                    for number, children in enumerate(tries)
                    for node, (prefix, tokens) in enumerate(children.items())
                }
        except ExceptionGroup as failures:
            # One failed step fails the classification; which sibling failed too is of no use to anyone.
            raise _first(failures) from failures
        return tuple(
            _scored(inquiry, {prefix: tasks[number, prefix].result() for prefix in tries[number]})
            for number, inquiry in enumerate(inquiries)
        )

    async def _step(self, request: GenerationRequest) -> GenerationChunk:
        last: GenerationChunk | None = None
        async with generation(self._engine, request) as chunks:
            async for chunk in chunks:
                last = chunk
        if last is None or not set(request.logprob_token_ids) <= last.token_logprobs.keys():
            raise GenerationError("the engine did not return the log-probabilities it was asked for")
        return last


def _scored(inquiry: ScoringRequest, steps: dict[Path, GenerationChunk]) -> LabelScore:
    log_likelihoods = tuple(
        math.fsum(steps[path[:depth]].token_logprobs[path[depth]] for depth in range(len(path)))
        for path in inquiry.paths
    )
    return LabelScore(inquiry=inquiry, log_likelihoods=log_likelihoods, steps=tuple(steps.items()))


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    error: Exception = failures
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
