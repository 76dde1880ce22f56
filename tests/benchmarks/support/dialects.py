"""Define the three ways of asking a stack over HTTP: our own route, our chat route, vLLM's chat route."""

import base64
import json
from typing import Any

from tests.benchmarks.support.request_file import Asked
from tests.benchmarks.support.traffic import Answer


class OwnRoute:
    """POST /v1/vqa."""

    path = "/v1/vqa"

    def body(self, asked: Asked) -> bytes:
        fields = {
            "image": base64.b64encode(asked.image).decode(),
            "question": asked.question,
            "max_tokens": asked.max_tokens,
            "stream": True,
        }
        return json.dumps(fields).encode()

    def text(self, event: dict[str, Any]) -> str:
        _raise_error(event)
        return str(event.get("delta", ""))

    def answer(self, events: list[dict[str, Any]], *, text: str, first: float | None) -> Answer:
        whole = events[-1]
        # A streamed answer is its pieces; what stands in the whole response must be the same.
        if whole["answer"] != text:
            raise RuntimeError("the pieces are not the answer")
        return Answer(first=first, text=text, tokens=whole["usage"]["completion_tokens"], stages=whole["timings"])


class ChatRoute:
    """POST /v1/chat/completions, ours or vLLM's, as an OpenAI client asks it."""

    path = "/v1/chat/completions"

    def __init__(self, model: str) -> None:
        self._model = model

    def body(self, asked: Asked) -> bytes:
        return json.dumps(self._fields(asked)).encode()

    def text(self, event: dict[str, Any]) -> str:
        _raise_error(event)
        return "".join(choice["delta"].get("content") or "" for choice in event["choices"])

    def answer(self, events: list[dict[str, Any]], *, text: str, first: float | None) -> Answer:
        usage = events[-1]["usage"]
        details = next((event["medmoe"] for event in events if event.get("medmoe")), {})
        return Answer(first=first, text=text, tokens=usage["completion_tokens"], stages=details.get("timings", {}))

    def _fields(self, asked: Asked) -> dict[str, Any]:
        content = [
            {"type": "image_url", "image_url": {"url": asked.data_url}},
            {"type": "text", "text": asked.question},
        ]
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            "max_completion_tokens": asked.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


class VllmRoute(ChatRoute):
    """vLLM's own; `with_ids` makes it tell its token ids, `with_logprobs` makes its engine do what ours always does."""

    def __init__(self, model: str, *, with_logprobs: bool, with_ids: bool = False) -> None:
        super().__init__(model)
        self._more: dict[str, Any] = {"return_token_ids": True} if with_ids else {}
        if with_logprobs:
            self._more |= {"logprobs": True, "top_logprobs": 0}

    def answer(self, events: list[dict[str, Any]], *, text: str, first: float | None) -> Answer:
        usage = events[-1]["usage"]
        prompt_ids = next((event["prompt_token_ids"] for event in events if event.get("prompt_token_ids")), None)
        ids = [id_ for event in events for choice in event["choices"] for id_ in choice.get("token_ids") or ()]
        return Answer(
            first=first,
            text=text,
            tokens=usage["completion_tokens"],
            token_ids=tuple(ids) or None,
            prompt_ids=tuple(prompt_ids) if prompt_ids else None,
        )

    def _fields(self, asked: Asked) -> dict[str, Any]:
        return super()._fields(asked) | self._more


def _raise_error(event: dict[str, Any]) -> None:
    if "error" in event:
        raise RuntimeError(f"200, then {event['error'].get('code')}")
