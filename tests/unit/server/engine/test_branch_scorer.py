"""Branches become one tree of tokens; what the engine says about its rows comes back as scores of branches."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from medmoe.server.engine.base import Branch, EngineDeadError, GenerationRequest
from medmoe.server.engine.scoring import branch_scorer
from medmoe.server.engine.scoring.branch_scorer import BranchScorer, TokenTree
from tests.support.checkpoints.tiny import tiny_config

BRANCHES = (
    Branch(path=(7,), logprob_token_ids=(1, 2)),
    Branch(path=(8,), logprob_token_ids=(3,)),
    Branch(path=(7, 9), logprob_token_ids=(4,)),
    Branch(path=(8, 9), logprob_token_ids=(5,)),
)


def request(branches: Sequence[Branch] = BRANCHES) -> GenerationRequest:
    return GenerationRequest(
        request_id="r",
        prompt_ids=(10, 11),
        image=np.zeros((1, 1, 3), np.uint8),
        image_id="an image",
        cache_salt="a tenant's ",
        max_tokens=1,
        branches=tuple(branches),
    )


async def healthy() -> None:
    return None


def test_branches_that_begin_alike_share_their_tokens() -> None:
    tree = TokenTree.of((10, 11), BRANCHES)
    assert tree.token_ids == [10, 11, 7, 8, 9, 9]
    assert tree.parents == [-1, 0, 1, 1, 2, 3]
    assert tree.wanted == [(2, [1, 2]), (3, [3]), (4, [4]), (5, [5])]


async def test_scores_are_those_of_the_rows() -> None:
    asked = []

    async def call(method: str, *, args: tuple[Any, ...]) -> list[Any]:
        asked.append((method, args[2]))
        experts = [np.array([row, 0], dtype=np.int32).tobytes() for row, _ in args[3]]
        return [([[-float(token) for token in tokens] for _, tokens in args[3]], experts)]

    scorer = BranchScorer(tiny_config(), most_tokens=100)
    scores = await scorer.score(request(), call=call, check_health=healthy)
    assert asked == [("score_branches", "a tenant's an image")]
    assert [score.token_logprobs for score in scores] == [{1: -1.0, 2: -2.0}, {3: -3.0}, {4: -4.0}, {5: -5.0}]
    rows = [score.routed_experts for score in scores if score.routed_experts is not None]
    assert [row[0, 0, 0] for row in rows] == [2, 3, 4, 5]


async def test_there_are_no_scores_without_the_images_embeddings() -> None:
    async def call(method: str, *, args: tuple[Any, ...]) -> list[Any]:
        return [None]

    assert await BranchScorer(tiny_config(), most_tokens=100).score(request(), call=call, check_health=healthy) == ()


async def test_an_engine_that_dies_meanwhile_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch_scorer, "_LOOK_SECONDS", 0.001)

    async def call(method: str, *, args: tuple[Any, ...]) -> list[Any]:
        await asyncio.Event().wait()
        raise AssertionError("nobody answers")

    async def dead() -> None:
        raise EngineDeadError("the engine process has ended")

    with pytest.raises(EngineDeadError):
        await BranchScorer(tiny_config(), most_tokens=100).score(request(), call=call, check_health=dead)


def test_few_branches_and_long_trees_stay_requests_of_their_own() -> None:
    scorer = BranchScorer(tiny_config(), most_tokens=100)
    assert scorer.pays(request())
    assert not scorer.pays(request(BRANCHES[:0]))
    assert not scorer.pays(request([Branch(path=(number,), logprob_token_ids=(1,)) for number in range(99)]))
