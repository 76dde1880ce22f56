"""Parse server-sent events from the chunks of a response."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from medmoe.client.answers.series import SeriesEvent
from medmoe.client.answers.vqa import Delta, VqaAnswer
from medmoe.client.errors import UnexpectedAnswer
from medmoe.client.transport.error_body import service_error

AnyEvent = TypeVar("AnyEvent")
Event = Delta | VqaAnswer
"""Deltas of the text, then the whole answer."""

_DONE = b"[DONE]"
_SERIES: TypeAdapter[SeriesEvent] = TypeAdapter(SeriesEvent)


class EventReader(Generic[AnyEvent]):
    """Parse a byte stream into events. Only line feeds end lines, because text may hold Unicode's line separators."""

    def __init__(self, parse: Callable[[Any], AnyEvent]) -> None:
        """`parse` returns the event of a JSON object, and raises ValueError for one that is none."""
        self._parse = parse
        self._rest = b""
        self._data: list[bytes] = []
        self._done = False

    def feed(self, chunk: bytes) -> Iterator[AnyEvent]:
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
                    yield self._event(data)

    def end(self) -> None:
        """Raise UnexpectedAnswer when the stream ended without its final [DONE]."""
        if not self._done:
            raise UnexpectedAnswer("the stream ended before the answer did")

    def _event(self, data: bytes) -> AnyEvent:
        try:
            document = json.loads(data)
            if isinstance(document, dict) and "error" in document:
                raise service_error(document)
            return self._parse(document)
        except (ValueError, RecursionError) as error:
            raise UnexpectedAnswer("an event of the stream is not what this client knows") from error


def answer_event(document: Any) -> Event:
    """Return the event of a streamed answer. Raises ValueError."""
    if isinstance(document, dict) and isinstance(document.get("delta"), str):
        return Delta(text=document["delta"])
    return VqaAnswer.model_validate(document)


def series_event(document: Any) -> SeriesEvent:
    """Return the event of a streamed series. Raises ValueError."""
    return _SERIES.validate_python(document)
