"""Convert the answer of medmoe.server.inference.vqa to OpenAI's chat completion, whole or as chunks."""

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from medmoe.server.inference.token_logprobs import TokenLogprobs
from medmoe.server.schemas.openai.chat import (
    ChatChoice,
    ChatCompletion,
    ChatDetails,
    ChatMessage,
    ChatUsage,
    PromptTokensDetails,
)
from medmoe.server.schemas.vqa import VQAResponse


class ChatAnswer:
    """One completion; every chunk has the same id and time."""

    def __init__(
        self,
        *,
        model: str,
        include_usage: bool,
        ignored: tuple[int, ...],
        tokens: TokenLogprobs | None,
    ) -> None:
        """`ignored` are the indices of the messages whose texts were left out.

        `tokens` collects the answer's tokens while it is generated; None where the request wants none.
        """
        self._model = model
        self._include_usage = include_usage
        self._ignored = ignored
        self._tokens = tokens
        self._id = f"chatcmpl-{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._begun = False

    def whole(self, answer: VQAResponse) -> ChatCompletion:
        """Return the completion as one object."""
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=(
                ChatChoice(
                    message=ChatMessage(content=answer.answer),
                    finish_reason=answer.finish_reason,
                    logprobs=self._tokens.take() if self._tokens else None,
                ),
            ),
            usage=_usage(answer),
            medmoe=self._details(answer),
        )

    def events(self, piece: str | VQAResponse) -> Iterator[str]:
        """Yield the chunks, as JSON, of a piece of text or of the response at the end."""
        if not self._begun:
            self._begun = True
            yield self._chunk({"role": "assistant", "content": ""})
        if isinstance(piece, str):
            yield self._chunk({"content": piece}, logprobs=self._logprobs())
            return
        yield self._chunk(
            {},
            logprobs=self._logprobs(),
            finish_reason=piece.finish_reason,
            medmoe=self._details(piece).model_dump(mode="json"),
        )
        if self._include_usage:
            yield self._object(choices=[], usage=_usage(piece).model_dump())

    def _details(self, answer: VQAResponse) -> ChatDetails:
        return ChatDetails(
            confidence=answer.confidence,
            abstained=answer.abstained,
            unlike_training=answer.unlike_training,
            timings=answer.timings,
            provenance=answer.provenance,
            routing=answer.routing,
            ignored_messages=self._ignored,
        )

    def _logprobs(self) -> dict[str, Any] | None:
        released = self._tokens.take() if self._tokens else None
        return released.model_dump() if released and released.content else None

    def _chunk(
        self,
        delta: dict[str, str],
        *,
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
        **more: Any,
    ) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        # With include_usage, every chunk has the field.
        return self._object(choices=[choice], **({"usage": None} if self._include_usage else {}), **more)

    def _object(self, **fields: Any) -> str:
        head = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        return json.dumps(head | fields)


def _usage(answer: VQAResponse) -> ChatUsage:
    usage = answer.usage
    return ChatUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens, image_tokens=usage.image_tokens),
    )
