"""What is read of vLLM's cumulative outputs: text before stop strings, and the most likely tokens."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medmoe.server.engine.base import GenerationChunk, GenerationRequest
from medmoe.server.engine.completion import OutputReader, sampling_arguments, text_before_stop


def request(**changes: Any) -> GenerationRequest:
    return GenerationRequest(
        request_id="r", prompt_ids=(1, 3), image=np.zeros((8, 8, 3), np.uint8), image_id="00", max_tokens=8, **changes
    )


def output(text: str, rows: list[dict[int, float]], *, reason: str | None = None) -> Any:
    logprobs = [{token: SimpleNamespace(logprob=value) for token, value in row.items()} for row in rows]
    completion = SimpleNamespace(
        text=text, token_ids=[next(iter(row)) for row in rows], logprobs=logprobs, finish_reason=reason
    )
    return SimpleNamespace(outputs=[completion], prompt_token_ids=[1, 3], num_cached_tokens=None)


@pytest.mark.parametrize(
    ("text", "stop", "ended", "expected"),
    [
        ("left lung", (), False, ("left lung", False)),
        ("left lung", ("lung",), False, ("left ", True)),
        ("left lu", ("lung",), False, ("left ", False)),
        ("left lu", ("lung",), True, ("left lu", False)),
        ("left", ("lung",), False, ("left", False)),
        ("aab", ("aabc", "ab"), False, ("a", True)),
        ("abcd", ("bcd", "c"), False, ("ab", True)),
        ("abc", ("c", "bc"), False, ("a", True)),
        (" Chest CT", (" ",), False, ("Chest", True)),
        ("l", ("lung", "x"), False, ("", False)),
    ],
)
def test_text_ends_before_the_stop_string_that_is_complete_first(
    text: str, stop: tuple[str, ...], ended: bool, expected: tuple[str, bool]
) -> None:
    assert text_before_stop(text, stop, ended=ended) == expected


def test_chunks_are_what_each_output_adds() -> None:
    reader = OutputReader(request(stop=("ung",), top_logprobs=2))
    rows = [{5: -0.1, 6: -2.0, 7: -3.0}, {8: -1.5, 9: -0.4, 5: -2.0}, {4: -0.2, 3: -3.0}]
    chunks = [reader.chunk(output(" Left", rows[:1])), reader.chunk(output(" Left lung", rows))]
    assert [chunk.text for chunk in chunks] == ["Left", " l"]
    assert [chunk.token_ids for chunk in chunks] == [(5,), (8, 4)]
    assert [chunk.logprobs for chunk in chunks] == [(-0.1,), (-1.5, -0.2)]
    assert chunks[1].top_logprobs == (((9, -0.4), (8, -1.5)), ((4, -0.2), (3, -3.0)))
    assert [(chunk.finish_reason, chunk.stopped) for chunk in chunks] == [(None, False), ("stop", True)]


def test_no_alternatives_are_read_where_none_are_asked_for() -> None:
    chunk: GenerationChunk = OutputReader(request()).chunk(output("Left", [{5: -0.1}], reason="length"))
    assert (chunk.top_logprobs, chunk.finish_reason, chunk.stopped) == ((), "length", False)
    assert sampling_arguments(request(top_logprobs=4), eos_token_id=2)["logprobs"] == 4
    assert sampling_arguments(request(logprob_token_ids=(9,)), eos_token_id=2)["logprobs"] is None
