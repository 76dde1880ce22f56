"""Parse server-sent events from the chunks of a response."""

import json
from collections.abc import Iterator

from medmoe.client.answers.vqa import Delta, VqaAnswer
from medmoe.client.errors import UnexpectedAnswer
from medmoe.client.transport.error_body import service_error

Event = Delta | VqaAnswer
"""Deltas of the text, then the whole answer."""

_DONE = b"[DONE]"


class EventReader:
    """Parse a byte stream into events. Only line feeds end lines, because text may hold Unicode's line separators."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._done = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that `chunk` completes. Raises ServiceError for an error event, and UnexpectedAnswer."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                if data == _DONE:
                    self._done = True
                else:
                    yield _event(data)

    def end(self) -> None:
        """Raise UnexpectedAnswer when the stream ended without its final [DONE]."""
        if not self._done:
            raise UnexpectedAnswer("the stream ended before the answer did")


def _event(data: bytes) -> Event:
    try:
        document = json.loads(data)
        if isinstance(document, dict) and "error" in document:
            raise service_error(document)
        if isinstance(document, dict) and isinstance(document.get("delta"), str):
            return Delta(text=document["delta"])
        return VqaAnswer.model_validate_json(data)
    except (ValueError, RecursionError) as error:
        raise UnexpectedAnswer("an event of the stream is not what this client knows") from error
