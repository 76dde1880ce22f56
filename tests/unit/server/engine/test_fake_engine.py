"""The stand-in engine keeps the promises that other tests lean on."""

from contextlib import aclosing

import numpy as np
import pytest

from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import EngineDeadError, GenerationChunk, GenerationRequest
from medmoe.server.engine.fake_engine import FakeEngine
from tests.support.checkpoints.tiny import tiny_config, tiny_tokenizer


@pytest.fixture
def engine() -> FakeEngine:
    config = tiny_config()
    return FakeEngine(config, Prompt(config, tokenizer=tiny_tokenizer()))


def request(engine: FakeEngine, **changes: object) -> GenerationRequest:
    fields: dict[str, object] = {
        "request_id": "r",
        "prompt_ids": tuple(engine._prompt.question("What is shown?")),
        "image": np.zeros((32, 32, 3), np.uint8),
        "image_id": "an image",
        "max_tokens": 64,
    }
    return GenerationRequest(**(fields | changes))  # type: ignore[arg-type]


async def run(engine: FakeEngine, request: GenerationRequest) -> list[GenerationChunk]:
    return [chunk async for chunk in engine.generate(request)]


async def test_the_next_token_has_a_distribution(engine: FakeEngine) -> None:
    logprobs = engine.log_probabilities("an image", (1, 3, 70))
    assert logprobs.shape == (512,)
    assert np.exp(logprobs).sum() == pytest.approx(1)


async def test_it_does_not_matter_where_the_prompt_ends(engine: FakeEngine) -> None:
    whole = await run(engine, request(engine))
    ids = [token for chunk in whole for token in chunk.token_ids]
    assert len(ids) > 1
    rest = await run(engine, request(engine, prompt_ids=(*request(engine).prompt_ids, ids[0])))
    assert [token for chunk in rest for token in chunk.token_ids] == ids[1:]
    assert [chunk.logprobs for chunk in rest] == [chunk.logprobs for chunk in whole[1:]]


async def test_the_last_chunk_has_the_totals(engine: FakeEngine) -> None:
    *others, last = await run(engine, request(engine, logprob_token_ids=(5, 7)))
    assert all(chunk.finish_reason is None for chunk in others)
    assert last.finish_reason == "stop"
    assert last.token_ids == (2,)
    assert last.num_prompt_tokens == len(request(engine).prompt_ids) + 3
    assert set(last.token_logprobs) == {5, 7}
    assert last.routed_experts is not None
    assert last.routed_experts.shape == (last.num_prompt_tokens + len(others), 3, 1)
    assert not last.routed_experts[:, 1].any()
    assert last.routed_experts[:, [0, 2]].max() == 3


async def test_seeds_and_images_change_the_answer(engine: FakeEngine) -> None:
    texts = set()
    for seed in range(8):
        chunks = await run(engine, request(engine, temperature=2.0, seed=seed))
        texts.add("".join(chunk.text for chunk in chunks))
    assert len(texts) > 1
    by_image = {
        "".join(chunk.text for chunk in await run(engine, request(engine, image_id=str(number)))) for number in range(8)
    }
    assert len(by_image) > 1


async def test_leaving_early_is_an_abort(engine: FakeEngine) -> None:
    async with aclosing(engine.generate(request(engine))) as chunks:
        await anext(chunks)
    assert (engine.started, engine.finished, engine.aborted) == (1, 0, 1)
    await run(engine, request(engine))
    assert (engine.started, engine.finished, engine.aborted) == (2, 1, 1)


async def test_a_dead_engine_generates_nothing(engine: FakeEngine) -> None:
    engine.dead = True
    with pytest.raises(EngineDeadError):
        await engine.check_health()
    with pytest.raises(EngineDeadError):
        await run(engine, request(engine))
