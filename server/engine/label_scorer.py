"""Score given answers by their exact likelihood under the model.

Each answer is a path of tokens, and the paths after one prompt form a trie. One engine request for each inner node asks
for the log-probabilities of its children. Answers that begin alike share requests, and the engine's prefix cache shares
the image and the question.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from PIL import Image

from medmoe.server.engine.base import Engine, GenerationChunk, GenerationError, GenerationRequest, generation
from medmoe.server.tasks import run_all

Path = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringRequest:
    """A prompt with the answers to score after it."""

    prompt_ids: Path
    paths: tuple[Path, ...]
    """Token paths of the answers: distinct, none the beginning of another."""

    @property
    def children(self) -> dict[Path, set[int]]:
        """Return the trie as a table from each inner node to its next tokens, shortest prefixes first."""
        table: dict[Path, set[int]] = {}
        for path in self.paths:
            for depth, token in enumerate(path):
                table.setdefault(path[:depth], set()).add(token)
        return dict(sorted(table.items(), key=lambda item: len(item[0])))

    @property
    def steps(self) -> int:
        """Number of engine requests: the inner nodes of the trie."""
        return len(self.children)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScore:
    """The likelihoods of one scoring request's answers."""

    inquiry: ScoringRequest
    log_likelihoods: tuple[float, ...]
    """Log-likelihood of each path, natural logarithm."""
    steps: tuple[tuple[Path, GenerationChunk], ...]
    """The engine's last chunk at each trie node, by the answer tokens that lead to it; the root, (), comes first."""


class LabelScorer:
    """Score answers with one engine."""

    def __init__(self, engine: Engine, *, hold: Callable[[], AbstractAsyncContextManager[None]] = nullcontext) -> None:
        """Enter what `hold` returns around each engine request."""
        self._engine = engine
        self._hold = hold

    async def score(
        self,
        inquiries: Sequence[ScoringRequest],
        *,
        image: Image.Image,
        image_id: str,
        request_id: str,
        cache_salt: str | None = None,
    ) -> tuple[LabelScore, ...]:
        """Return the scores of each of `inquiries`. Raises what the engine raises and aborts the other requests."""
        tries = [inquiry.children for inquiry in inquiries]
        requests = {
            (number, prefix): GenerationRequest(
                request_id=f"{request_id}-{number}-{node}",
                prompt_ids=(*inquiries[number].prompt_ids, *prefix),
                image=image,
                image_id=image_id,
                cache_salt=cache_salt,
                max_tokens=1,
                logprob_token_ids=tuple(sorted(tokens)),
            )
            for number, children in enumerate(tries)
            for node, (prefix, tokens) in enumerate(children.items())
        }
        # One failed step fails the classification.
        chunks = dict(zip(requests, await run_all(map(self._step, requests.values())), strict=True))
        return tuple(
            _scored(inquiry, {prefix: chunks[number, prefix] for prefix in tries[number]})
            for number, inquiry in enumerate(inquiries)
        )

    async def _step(self, request: GenerationRequest) -> GenerationChunk:
        last: GenerationChunk | None = None
        async with self._hold(), generation(self._engine, request) as chunks:
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
