"""The served model is the reference model: tokens, log-probabilities, routing, through the real vLLM CPU engine."""

import asyncio
import hashlib

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from medmoe.model.image_processor import ImageProcessor
from medmoe.server.engine.base import GenerationChunk, GenerationRequest
from tests.engine.conftest import Served
from tests.engine.reference import Reference

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

PROMPTS = 32
MAX_TOKENS = 12
LOG_PROB_TOLERANCE = 1e-4  # float32 on both sides; a forgotten gate bias or a doubled meta expert shows at 1e-1


def image(number: int) -> Image.Image:
    noise = np.random.default_rng(number)
    size = noise.integers(20, 60, 2)
    return Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8))


# Long enough to fill several cache blocks, of every length.
QUESTIONS = [f"Is there a fracture in region {number}{' of the lung' * (number % 20)}?" for number in range(PROMPTS)]
IMAGES = [image(number) for number in range(PROMPTS)]


@pytest.fixture(scope="session")
def reference(served: Served) -> Reference:
    return Reference(served.checkpoint)


async def ask(
    served: Served,
    reference: Reference,
    number: int,
    *,
    tag: str,
    image: Image.Image | None = None,
    max_tokens: int = MAX_TOKENS,
    asked: tuple[int, ...] = (),
    pause: float = 0.0,
    salt: str | None = None,
    whole: bool = False,
) -> GenerationChunk:
    """All chunks of one answer put together, of which a whole answer has one."""
    image = ImageProcessor.from_config(reference.model.config).resize(image or IMAGES[number])
    request = GenerationRequest(
        request_id=f"{tag}-{number}",
        prompt_ids=tuple(reference.prompt.question(QUESTIONS[number])),
        image=np.asarray(image),
        image_id=hashlib.sha256(image.tobytes()).hexdigest(),
        cache_salt=salt,
        max_tokens=max_tokens,
        logprob_token_ids=asked,
        whole=whole,
    )
    chunks = []
    async for chunk in served.engine.generate(request):
        chunks.append(chunk)
        await asyncio.sleep(pause)
    assert not whole or len(chunks) == 1
    last = chunks[-1]
    return GenerationChunk(
        text="".join(chunk.text for chunk in chunks),
        token_ids=tuple(token for chunk in chunks for token in chunk.token_ids),
        logprobs=tuple(value for chunk in chunks for value in chunk.logprobs),
        finish_reason=last.finish_reason,
        num_prompt_tokens=last.num_prompt_tokens,
        num_cached_tokens=last.num_cached_tokens,
        token_logprobs=last.token_logprobs,
        routed_experts=last.routed_experts,
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def answers(served: Served, reference: Reference) -> list[GenerationChunk]:
    """All prompts at once, so that they share batches as real requests do."""
    asked = (ask(served, reference, number, tag="together") for number in range(PROMPTS))
    return list(await asyncio.gather(*asked))


async def test_greedy_tokens_are_equal(answers: list[GenerationChunk], reference: Reference) -> None:
    expected = reference.generate(QUESTIONS, IMAGES, max_tokens=MAX_TOKENS)
    assert [list(answer.token_ids) for answer in answers] == expected
    # The comparison would be worth little if every prompt had the same answer.
    assert len({tuple(answer) for answer in expected}) > PROMPTS // 2


async def test_log_probabilities_agree(answers: list[GenerationChunk], reference: Reference) -> None:
    worst = 0.0
    for number, answer in enumerate(answers):
        trace = reference.trace(QUESTIONS[number], IMAGES[number], answer=answer.token_ids)
        expected = [float(row[token]) for row, token in zip(trace.log_probs, answer.token_ids, strict=True)]
        worst = max(worst, float(np.abs(np.subtract(expected, answer.logprobs)).max()))
    print(f"largest difference of a log-probability: {worst:.1e}")
    assert worst < LOG_PROB_TOLERANCE


async def test_routing_is_the_routers_choice_token_for_token(
    answers: list[GenerationChunk], reference: Reference
) -> None:
    for number, answer in enumerate(answers):
        trace = reference.trace(QUESTIONS[number], IMAGES[number], answer=answer.token_ids)
        assert answer.routed_experts is not None
        np.testing.assert_array_equal(answer.routed_experts, trace.experts)
    moe_layers = list(reference.model.config.text_config.moe_layers)
    used = np.concatenate([answer.routed_experts[:, moe_layers, 0].ravel() for answer in answers])  # type: ignore[index]
    assert set(used.tolist()) == set(range(reference.model.config.text_config.num_experts))


async def test_a_slow_reader_loses_nothing(
    served: Served, reference: Reference, answers: list[GenerationChunk]
) -> None:
    """vLLM merges what a reader has not fetched yet; a reader slower than the engine gets it all at once."""
    slow = await ask(served, reference, 5, tag="slow", pause=0.5)
    assert slow.token_ids == answers[5].token_ids
    np.testing.assert_allclose(slow.logprobs, answers[5].logprobs, atol=LOG_PROB_TOLERANCE)
    np.testing.assert_array_equal(slow.routed_experts, answers[5].routed_experts)


async def test_a_whole_answer_is_the_same_in_one_chunk(
    served: Served, reference: Reference, answers: list[GenerationChunk]
) -> None:
    whole = await ask(served, reference, 6, tag="whole", whole=True)
    assert (whole.text, whole.token_ids) == (answers[6].text, answers[6].token_ids)
    assert (whole.finish_reason, whole.num_prompt_tokens) == (answers[6].finish_reason, answers[6].num_prompt_tokens)
    np.testing.assert_allclose(whole.logprobs, answers[6].logprobs, atol=LOG_PROB_TOLERANCE)
    np.testing.assert_array_equal(whole.routed_experts, answers[6].routed_experts)


async def test_asked_log_probabilities_are_the_whole_vocabularys(served: Served, reference: Reference) -> None:
    asked = tuple(range(4, 104))
    answer = await ask(served, reference, 0, tag="asked", max_tokens=1, asked=asked)
    trace = reference.trace(QUESTIONS[0], IMAGES[0], answer=answer.token_ids)
    expected = [float(trace.log_probs[0, token]) for token in asked]
    assert np.abs(np.subtract(expected, [answer.token_logprobs[token] for token in asked])).max() < LOG_PROB_TOLERANCE


async def test_the_prefix_cache_changes_neither_answer_nor_routing(
    served: Served, reference: Reference, answers: list[GenerationChunk]
) -> None:
    number = 19
    again = await ask(served, reference, number, tag="again")
    assert again.num_cached_tokens > 0
    assert again.token_ids == answers[number].token_ids
    np.testing.assert_allclose(again.logprobs, answers[number].logprobs, atol=LOG_PROB_TOLERANCE)
    np.testing.assert_array_equal(again.routed_experts, answers[number].routed_experts)


async def test_another_tenant_is_never_answered_from_the_cache(
    served: Served, reference: Reference, answers: list[GenerationChunk]
) -> None:
    number = 19
    cached = []
    for tag, salt in (("one", "a"), ("two", "b"), ("one-again", "a")):
        answer = await ask(served, reference, number, tag=tag, salt=salt)
        assert answer.token_ids == answers[number].token_ids
        cached.append(answer.num_cached_tokens)
    assert cached[:2] == [0, 0]
    assert cached[2] > 0


async def test_another_image_is_never_answered_from_the_cache(
    served: Served, reference: Reference, answers: list[GenerationChunk]
) -> None:
    other = image(1000)
    number = 19
    answer = await ask(served, reference, number, tag="other", image=other)
    expected = reference.generate([QUESTIONS[number]], [other], max_tokens=MAX_TOKENS)[0]
    assert answer.num_cached_tokens == 0
    assert list(answer.token_ids) == expected
    assert answer.token_ids != answers[number].token_ids
