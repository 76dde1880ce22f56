"""Collect the log-probabilities of an answer's tokens in OpenAI's form."""

from collections import deque

from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import GenerationChunk
from medmoe.server.schemas.openai.chat import ChoiceLogprobs, TokenLogprob, TopLogprob

_LOWEST = -9999.0
"""OpenAI's number for a token that cannot come: JSON has no infinity."""
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TokenLogprobs:
    """The tokens of one answer, each released when its text has been sent.

    Tokens that are no part of the answer are left out: its end, outer white space, and what a stop string cut off.
    Where the answer ends within a token, that token is the last one.
    """

    def __init__(self, prompt: Prompt, *, top: int) -> None:
        """Give each token its `top` most likely alternatives."""
        self.top = top
        self._prompt = prompt
        self._ids: list[int] = []
        self._waiting: deque[tuple[int, int, TokenLogprob]] = deque()
        """Where a token's text begins and ends in the answer, and the token."""
        self._released: list[TokenLogprob] = []
        self._length = 0

    def add(self, chunk: GenerationChunk, *, answer: str) -> None:
        """Add the tokens of `chunk`; `answer` is the text up to it without outer white space."""
        for place, (id_, logprob) in enumerate(zip(chunk.token_ids, chunk.logprobs, strict=True)):
            self._ids.append(id_)
            start, self._length = self._length, len(self._prompt.decode(self._ids))
            alternatives = chunk.top_logprobs[place] if chunk.top_logprobs else ()
            tops = tuple(self._token(*alternative) for alternative in alternatives)
            token = TokenLogprob(**self._token(id_, logprob).model_dump(), top_logprobs=tops)
            self._waiting.append((start, self._length, token))
        ended = chunk.finish_reason is not None
        while self._waiting:
            start, end, token = self._waiting[0]
            if start >= len(answer) or not (ended or end <= len(answer)):
                return
            self._waiting.popleft()
            self._released.append(token)

    def take(self) -> ChoiceLogprobs:
        """Return the tokens that were released since the last call."""
        released, self._released = self._released, []
        return ChoiceLogprobs(content=tuple(released))

    def _token(self, id_: int, logprob: float) -> TopLogprob:
        text = self._prompt.token_text(id_)
        as_bytes = None if _INCOMPLETE in text else tuple(text.encode())
        return TopLogprob(token=text, logprob=max(logprob, _LOWEST), bytes=as_bytes)
