"""Read vLLM's completions: log-probabilities and the reason for the end."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from medmoe.server.engine.base import GenerationError


class Logprob(Protocol):
    """The part of vLLM's Logprob that is read here."""

    @property
    def logprob(self) -> float: ...


class Completion(Protocol):
    """The part of vLLM's CompletionOutput that is read here."""

    @property
    def token_ids(self) -> Sequence[int]: ...

    @property
    def logprobs(self) -> Sequence[Mapping[int, Logprob]] | None:
        """One table of token ids for each generated position; None when none were asked for."""

    @property
    def finish_reason(self) -> str | None: ...


def last_logprobs(completion: Completion, *, count: int) -> tuple[float, ...]:
    """Return the log-probabilities of the last `count` generated tokens."""
    rows = completion.logprobs or []
    last = zip(completion.token_ids[-count:], rows[-count:], strict=True) if count else ()
    return tuple(row[token].logprob for token, row in last)


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
