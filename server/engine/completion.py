"""Write vLLM's sampling parameters and read its completions: text, log-probabilities and the reason for the end."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from medmoe.server.engine.base import GenerationChunk, GenerationError, GenerationRequest


class Logprob(Protocol):
    """The part of vLLM's Logprob that is read here."""

    @property
    def logprob(self) -> float: ...


class Completion(Protocol):
    """The part of vLLM's CompletionOutput that is read here."""

    @property
    def text(self) -> str: ...

    @property
    def token_ids(self) -> Sequence[int]: ...

    @property
    def logprobs(self) -> Sequence[Mapping[int, Logprob]] | None:
        """Return a table by token id for each generated position; None when none were asked for."""

    @property
    def finish_reason(self) -> str | None: ...


class Output(Protocol):
    """The part of vLLM's RequestOutput that is read here."""

    @property
    def outputs(self) -> Sequence[Completion]: ...

    @property
    def prompt_token_ids(self) -> Sequence[int] | None: ...

    @property
    def num_cached_tokens(self) -> int | None: ...


class OutputReader:
    """Convert the cumulative outputs of one request to chunks."""

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._characters = 0
        self._tokens = 0

    def chunk(self, output: Output) -> GenerationChunk:
        """Return what `output` has more than the one before, without `unlike_training`. Raises GenerationError."""
        completion, request = output.outputs[0], self._request
        reason = finish_reason(completion)
        text, stopped = text_before_stop(completion.text, request.stop, ended=reason is not None)
        added, token_ids = text[self._characters :], tuple(completion.token_ids[self._tokens :])
        self._characters, self._tokens = len(text), len(completion.token_ids)
        routed: np.ndarray | None = getattr(completion, "routed_experts", None)
        return GenerationChunk(
            text=added,
            token_ids=token_ids,
            logprobs=last_logprobs(completion, count=len(token_ids)),
            top_logprobs=last_top_logprobs(completion, count=len(token_ids), top=request.top_logprobs),
            finish_reason="stop" if stopped else reason,
            stopped=stopped,
            num_prompt_tokens=len(output.prompt_token_ids or ()),
            num_cached_tokens=output.num_cached_tokens or 0,
            token_logprobs=first_logprobs(completion, request.logprob_token_ids),
            routed_experts=routed,
        )


def sampling_arguments(request: GenerationRequest, *, eos_token_id: int) -> dict[str, Any]:
    """Return the keyword arguments of vLLM's SamplingParams. Stop strings are found by `text_before_stop`."""
    asked = list(request.logprob_token_ids)
    return {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "logprobs": None if asked else request.top_logprobs,
        "logprob_token_ids": asked or None,
        "detokenize": not asked,
        # config.json decides where an answer ends, not whatever generation settings lie beside it.
        "stop_token_ids": [eos_token_id],
    }


def text_before_stop(text: str, stop: Sequence[str], *, ended: bool) -> tuple[str, bool]:
    """Return what of a generated `text` comes before the first stop string, and whether there is one.

    Until the text has `ended`, an end that may be the beginning of a stop string is left out.
    """
    if not stop:
        return text, False
    text = text.lstrip()
    found = [(start + len(string), start) for string in stop if (start := text.find(string)) >= 0]
    if found:
        _, start = min(found)
        return text[:start], True
    held = 0 if ended else max(_overlap(text, string) for string in stop)
    return text[: len(text) - held], False


def _overlap(text: str, string: str) -> int:
    """Return the length of the longest end of `text` with which `string` begins."""
    longest = min(len(text), len(string) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(string[:length])), 0)


def last_logprobs(completion: Completion, *, count: int) -> tuple[float, ...]:
    """Return the log-probabilities of the last `count` generated tokens."""
    rows = completion.logprobs or []
    last = zip(completion.token_ids[-count:], rows[-count:], strict=True) if count else ()
    return tuple(row[token].logprob for token, row in last)


def last_top_logprobs(completion: Completion, *, count: int, top: int) -> tuple[tuple[tuple[int, float], ...], ...]:
    """Return the `top` most likely tokens at the positions of the last `count` generated tokens; empty for none."""
    rows = (completion.logprobs or [])[-count:] if count and top else []
    ranked = ([(token, found.logprob) for token, found in row.items()] for row in rows)
    return tuple(tuple(sorted(row, key=lambda pair: -pair[1])[:top]) for row in ranked)


def first_logprobs(completion: Completion, token_ids: Sequence[int]) -> Mapping[int, float]:
    """Return the log-probability of each of `token_ids` at the first generated position; empty before it is there."""
    if not token_ids or not completion.logprobs:
        return {}
    first = completion.logprobs[0]
    return {token: first[token].logprob for token in token_ids}


def finish_reason(completion: Completion) -> Literal["stop", "length"] | None:
    """Return why the answer ended, None while it goes on. Raises GenerationError for any other reason."""
    match completion.finish_reason:
        case None:
            return None
        case "stop":
            return "stop"
        case "length":
            return "length"
        case reason:
            raise GenerationError(f"the engine ended the request: {reason}")
