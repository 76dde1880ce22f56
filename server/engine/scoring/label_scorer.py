"""Score given answers by their exact likelihood under the model.

Each answer is a path of tokens, and the paths after one prompt form a trie. Each inner node asks for the
log-probabilities of its children: as a branch of one engine request where the engine prefers it, else as a request of
its own, for which the prefix cache shares the image and the question.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace

import numpy as np

from medmoe.server.engine.base import (
    Branch,
    BranchScore,
    Engine,
    GenerationChunk,
    GenerationError,
    GenerationRequest,
)
from medmoe.server.tasks import run_all

Path = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringRequest:
    """A prompt with the answers to score after it."""

    prompt_ids: Path
    paths: tuple[Path, ...]
    """Token paths of the answers: distinct, none the beginning of another."""

    def children(self) -> dict[Path, set[int]]:
        """Return the trie as a table from each inner node to its next tokens, shortest prefixes first."""
        table: dict[Path, set[int]] = {}
        for path in self.paths:
            for depth, token in enumerate(path):
                table.setdefault(path[:depth], set()).add(token)
        return dict(sorted(table.items(), key=lambda item: len(item[0])))

    @property
    def steps(self) -> int:
        """Return the number of engine requests at most: the inner nodes of the trie."""
        return len({path[:depth] for path in self.paths for depth in range(len(path))})


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScore:
    """The likelihoods of one scoring request's answers."""

    request: ScoringRequest
    log_likelihoods: tuple[float, ...]
    """Log-likelihood of each path, natural logarithm."""
    root: GenerationChunk
    """The engine's last chunk after the prompt."""
    branches: tuple[BranchScore, ...]
    """The scores at the other inner nodes of the trie."""


class LabelScorer:
    """Score answers with one engine."""

    def __init__(self, engine: Engine, *, hold: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Enter what `hold` returns around each engine request."""
        self._engine = engine
        self._hold = hold

    async def score(
        self,
        requests: Sequence[ScoringRequest],
        *,
        image: np.ndarray,
        image_id: str,
        request_id: str,
        cache_salt: str | None = None,
    ) -> tuple[LabelScore, ...]:
        """Return the scores of each of `requests`. Raises what the engine raises and aborts the other requests."""
        prompts = [
            GenerationRequest(
                request_id=f"{request_id}-{number}",
                prompt_ids=request.prompt_ids,
                image=image,
                image_id=image_id,
                cache_salt=cache_salt,
                max_tokens=1,
            )
            for number, request in enumerate(requests)
        ]
        # One failed step fails the classification.
        return tuple(await run_all(map(self._score, requests, prompts)))

    async def _score(self, request: ScoringRequest, prompt: GenerationRequest) -> LabelScore:
        nodes = [
            Branch(path=path, logprob_token_ids=tuple(sorted(tokens))) for path, tokens in request.children().items()
        ]
        root, branches = await self._nodes(prompt, nodes[0], tuple(nodes[1:]))
        scores = (root.token_logprobs, *(one.token_logprobs for one in branches))
        children = {node.path: found for node, found in zip(nodes, scores, strict=True)}
        log_likelihoods = tuple(
            math.fsum(children[path[:depth]][token] for depth, token in enumerate(path)) for path in request.paths
        )
        return LabelScore(request=request, log_likelihoods=log_likelihoods, root=root, branches=tuple(branches))

    async def _nodes(
        self, prompt: GenerationRequest, root: Branch, branches: tuple[Branch, ...]
    ) -> tuple[GenerationChunk, Sequence[BranchScore]]:
        """Return the engine's last chunk after the prompt and the scores of `branches`, in one request if it pays."""
        together = replace(prompt, logprob_token_ids=root.logprob_token_ids, branches=branches)
        if self._engine.scores_branches(together):
            chunk = await self._step(together)
            if chunk.branches:
                return chunk, chunk.branches
        each = (
            replace(
                prompt,
                request_id=f"{prompt.request_id}-{number}",
                prompt_ids=(*prompt.prompt_ids, *branch.path),
                logprob_token_ids=branch.logprob_token_ids,
            )
            for number, branch in enumerate(branches, start=1)
        )
        chunk, *others = await run_all(map(self._step, (replace(together, branches=()), *each)))
        return chunk, [_branch_score(other) for other in others]

    async def _step(self, request: GenerationRequest) -> GenerationChunk:
        last: GenerationChunk | None = None
        async with self._hold(), aclosing(self._engine.generate(request)) as chunks:
            async for chunk in chunks:
                last = chunk
        if last is None or not set(request.logprob_token_ids) <= last.token_logprobs.keys():
            raise GenerationError("the engine did not return the log-probabilities it was asked for")
        return last


def _branch_score(chunk: GenerationChunk) -> BranchScore:
    routed = chunk.routed_experts
    return BranchScore(token_logprobs=chunk.token_logprobs, routed_experts=None if routed is None else routed[-1:])
