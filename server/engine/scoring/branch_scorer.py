"""Score the branches of a request in one forward pass over the tree of their tokens."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import expand, expanded_length
from medmoe.server.engine.base import Branch, BranchScore, GenerationRequest

_TOKENS_A_BRANCH = 16
"""A branch that is a request of its own computes half a block of the prefix cache again, on average."""
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenTree:
    """The arguments of `score_branches` in medmoe.model.vllm_plugin.process.branch_scoring."""

    token_ids: list[int]
    parents: list[int]
    """Row of the token before each token, -1 for the first."""
    wanted: list[tuple[int, list[int]]]
    """For each branch its last token's row, and the tokens to score after it."""

    @classmethod
    def of(cls, prompt_ids: Sequence[int], branches: Sequence[Branch]) -> Self:
        """Build the tree; `prompt_ids` has the image expanded."""
        token_ids, parents = list(prompt_ids), list(range(-1, len(prompt_ids) - 1))
        rows: dict[tuple[int, ...], int] = {(): len(prompt_ids) - 1}
        for branch in branches:
            for depth, token in enumerate(branch.path):
                path = branch.path[: depth + 1]
                if path not in rows:
                    rows[path] = len(token_ids)
                    token_ids.append(token)
                    parents.append(rows[path[:-1]])
        wanted = [(rows[branch.path], list(branch.logprob_token_ids)) for branch in branches]
        return cls(token_ids=token_ids, parents=parents, wanted=wanted)


class BranchScorer:
    """Score branches with one engine, one request at a time: between two of them the engine makes a step for others."""

    def __init__(self, config: MedMoEConfig, *, most_tokens: int) -> None:
        """Leave trees of more than `most_tokens` to requests for each branch."""
        self._config = config
        self._most_tokens = most_tokens
        self._turn = asyncio.Lock()

    def pays(self, request: GenerationRequest) -> bool:
        """Return whether the tree has fewer tokens to compute than a request for each branch."""
        branches = len(request.branches)
        prompt_tokens = expanded_length(request.prompt_ids, self._config)
        tokens = prompt_tokens + sum(len(branch.path) for branch in request.branches)
        return tokens <= min(_TOKENS_A_BRANCH * branches, self._most_tokens)

    async def score(
        self,
        request: GenerationRequest,
        *,
        call: Callable[..., Awaitable[Sequence[Any]]],
        check_health: Callable[[], Awaitable[None]],
    ) -> tuple[BranchScore, ...]:
        """Return the scores of the request's branches, or none when the engine has freed the image's embeddings.

        `call` is vLLM's `collective_rpc`. Raises what `check_health` raises.
        """
        tree = TokenTree.of(expand(request.prompt_ids, self._config), request.branches)
        async with self._turn:
            arguments = (tree.token_ids, tree.parents, request.image_key, tree.wanted)
            calling = asyncio.ensure_future(call("score_branches", args=arguments))
            try:
                # A call is never answered by an engine that dies.
                while not (await asyncio.wait({calling}, timeout=_LOOK_SECONDS))[0]:
                    await check_health()
            finally:
                calling.cancel()
        (found,) = calling.result()
        return () if found is None else tuple(self._scores(tree, *found))

    def _scores(
        self, tree: TokenTree, log_probs: Sequence[Sequence[float]], experts: Sequence[bytes]
    ) -> list[BranchScore]:
        top_k = self._config.text_config.num_experts_per_tok
        return [
            BranchScore(
                token_logprobs=dict(zip(tokens, values, strict=True)),
                routed_experts=np.frombuffer(chosen, dtype=np.int32).reshape(1, -1, top_k) if chosen else None,
            )
            for (_, tokens), values, chosen in zip(tree.wanted, log_probs, experts, strict=True)
        ]
