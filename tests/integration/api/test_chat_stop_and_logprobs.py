"""The options `stop` and `logprobs` of POST /v1/chat/completions, as OpenAI's own client sees them."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.test_chat import complete, image, text, turn
from tests.integration.conftest import Service, ServiceFactory
from tests.integration.training.test_calibration import ANSWERS, calibrate

ASKED = {"messages": turn(text("What do you see?"), image())}


async def streamed(service: Service, **fields: Any) -> list[Any]:
    return [chunk async for chunk in await complete(service, stream=True, **ASKED, **fields)]


def joined(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def answer(service: Service) -> str:
    """Return the whole answer; several words, so that there is something to cut."""
    whole: str = (await complete(service, **ASKED)).choices[0].message.content
    assert len(whole.split()) > 1
    return whole


async def test_the_answer_ends_before_a_stop_string_and_is_not_calibrated(
    running: ServiceFactory, checkpoint: Path, tmp_path: Path
) -> None:
    async with running(model=calibrate(checkpoint, tmp_path / "calibrated", answers=ANSWERS)) as service:
        whole = await answer(service)
        assert (await complete(service, **ASKED)).medmoe["confidence"]["calibrated"]
        for start in range(len(whole)):
            for length in (1, 3, len(whole)):
                stop = whole[start : start + length]
                kept = whole[: whole.index(stop)].strip()
                completion = await complete(service, **ASKED, stop=stop)
                (choice,) = completion.choices
                assert (choice.message.content, choice.finish_reason) == (kept, "stop"), stop
                assert not completion.medmoe["confidence"]["calibrated"]
                assert joined(await streamed(service, stop=[stop])) == kept, stop


async def test_the_first_of_several_stop_strings_counts(service: Service) -> None:
    whole = await answer(service)
    stop = ["never said", whole[5:7], whole[2:4], whole[-1]]
    expected = whole[: min(whole.index(string) for string in stop[1:])].strip()
    assert (await complete(service, **ASKED, stop=stop)).choices[0].message.content == expected


async def test_a_stop_string_that_never_comes_changes_nothing(service: Service) -> None:
    whole = await complete(service, **ASKED)
    # What the answer ends with may have been the beginning of the stop string.
    ending = whole.choices[0].message.content[-3:] + "!"
    for stop in (ending, ["never said", ending]):
        completion = await complete(service, **ASKED, stop=stop)
        assert completion.choices == whole.choices
        assert completion.medmoe["confidence"] == whole.medmoe["confidence"]
        chunks = await streamed(service, stop=stop)
        assert joined(chunks) == whole.choices[0].message.content
        assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_stop_string_ends_the_work_of_the_engine(service: Service) -> None:
    whole = await complete(service, **ASKED)
    cut = await complete(service, **ASKED, stop=whole.choices[0].message.content[1:3])
    assert cut.usage.completion_tokens < whole.usage.completion_tokens
    assert service.engine.aborted == 0


async def test_logprobs_are_those_of_the_engine(service: Service) -> None:
    completion = await complete(service, **ASKED, logprobs=True, top_logprobs=3)
    (choice,) = completion.choices
    content = choice.logprobs.content
    assert choice.logprobs.refusal is None
    assert "".join(token.token for token in content).strip() == choice.message.content
    request = service.engine.last_request
    assert request is not None
    ids = list(request.prompt_ids)
    tokenizer = service.state.active.checkpoint.prompt
    total = 0.0
    for token in content:
        expected = service.engine.log_probabilities(request.image_id, ids)
        best = (-expected).argsort()[:3]
        assert [one.logprob for one in token.top_logprobs] == pytest.approx([float(expected[id_]) for id_ in best])
        assert [one.token for one in token.top_logprobs] == [tokenizer.token_text(int(id_)) for id_ in best]
        # The answer is greedy.
        assert (token.token, token.logprob) == (token.top_logprobs[0].token, token.top_logprobs[0].logprob)
        assert bytes(token.bytes or ()).decode() == token.token
        ids.append(int(best[0]))
        total += token.logprob
    end = service.engine.log_probabilities(request.image_id, ids).max()
    assert math.exp(total + end) == pytest.approx(completion.medmoe["confidence"]["value"])


async def test_without_alternatives_each_token_has_an_empty_list(service: Service) -> None:
    for more in ({}, {"top_logprobs": 0}):
        content = (await complete(service, **ASKED, logprobs=True, **more)).choices[0].logprobs.content
        assert content
        assert all(token.top_logprobs == [] for token in content)
    assert (await complete(service, **ASKED)).choices[0].logprobs is None


async def test_a_stream_has_each_token_once(service: Service) -> None:
    options = {"logprobs": True, "top_logprobs": 20}
    whole = (await complete(service, **ASKED, **options)).choices[0].logprobs.content
    chunks = [chunk.choices[0] for chunk in await streamed(service, **options)]
    assert [token for one in chunks if one.logprobs for token in one.logprobs.content] == whole
    assert all(one.logprobs for one in chunks if one.delta.content)


async def test_tokens_behind_a_stop_string_are_left_out(service: Service) -> None:
    whole = await answer(service)
    for start in range(1, len(whole) - 1):
        options = {"logprobs": True, "stop": whole[start : start + 2]}
        (choice,) = (await complete(service, **ASKED, **options)).choices
        tokens = [token.token for token in choice.logprobs.content]
        kept = choice.message.content
        assert "".join(tokens).strip().startswith(kept)
        assert len("".join(tokens[:-1]).strip()) < max(len(kept), 1)
        chunks = [chunk.choices[0] for chunk in await streamed(service, **options)]
        assert [token.token for one in chunks if one.logprobs for token in one.logprobs.content] == tokens
