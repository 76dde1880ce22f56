"""Return an answer whole or as server-sent events.

A failure during a stream becomes an event with the one error body, and leaving a stream early aborts the generation.
"""

import json
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from medmoe.server.admission.deadline import Deadline
from medmoe.server.errors import ClientDisconnected, DeadlineExceeded, Draining, Unauthenticated
from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.http.error_responses import error_body, log_failure
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.base import ApiModel

Piece = TypeVar("Piece", bound=str | ApiModel)
Last = TypeVar("Last", bound=ApiModel)
"""The piece that ends an answer."""
Whole = TypeVar("Whole")
"""The response of a route."""

_GRACE = 1.0
"""Seconds past the deadline in which its error event can still be sent."""


def own_events(piece: str | ApiModel) -> Iterable[str]:
    """Return the event of a piece: a `delta` for text, and a model as JSON."""
    return (f'{{"delta": {json.dumps(piece)}}}' if isinstance(piece, str) else piece.model_dump_json(),)


async def whole_or_streamed(
    request: Request,
    pieces: AsyncGenerator[Piece, None],
    *,
    stream: bool,
    deadline: Deadline,
    record: RequestRecord,
    last: type[Last],
    whole: Callable[[Last], Whole],
    events: Callable[[Piece], Iterable[str]],
) -> "Whole | EventStream[Piece]":
    """Return `whole` of the piece of type `last` that ends `pieces`, or an EventStream of their `events`, as JSON.

    Raises what the pieces raise before anything is sent, ClientDisconnected.
    """
    async with abandon_on_disconnect(request.receive):
        if stream:
            return EventStream(await anext(pieces), pieces, deadline=deadline, record=record, events=events)
        async with aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, last):
                    return whole(piece)
    raise AssertionError("an answer ends with its response or with an error")


class EventStream(StreamingResponse, Generic[Piece]):
    """A stream of the events of each piece, then `[DONE]`; after a failure an `error` event ends it."""

    def __init__(
        self,
        first: Piece,
        rest: AsyncGenerator[Piece, None],
        *,
        deadline: Deadline,
        record: RequestRecord,
        events: Callable[[Piece], Iterable[str]],
    ) -> None:
        """Pass the `first` piece awaited, so that a failure before it keeps its own status."""
        super().__init__(
            _stream(first, rest, record=record, events=events),
            media_type="text/event-stream",
            # nginx would hold events back until its buffer is full.
            headers={"X-Accel-Buffering": "no"},
        )
        self._rest = rest
        self._deadline = deadline
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with abandon_on_disconnect(receive), self._deadline.guard(grace=_GRACE):
                # For sending too: a client that stops reading must not keep its slot.
                await self.stream_response(send)
        except (ClientDisconnected, DeadlineExceeded, Draining, Unauthenticated) as error:
            error_body(error, record=self._record)
        finally:
            await self._rest.aclose()


async def _stream(
    first: Piece,
    rest: AsyncGenerator[Piece, None],
    *,
    record: RequestRecord,
    events: Callable[[Piece], Iterable[str]],
) -> AsyncGenerator[str, None]:
    try:
        for event in events(first):
            yield f"data: {event}\n\n"
        async for piece in rest:
            for event in events(piece):
                yield f"data: {event}\n\n"
    except Exception as error:
        # Any exception: the status has been sent, so only an event can report it.
        log_failure(error, record=record)
        yield f"data: {error_body(error, record=record).model_dump_json()}\n\n"
        return
    yield "data: [DONE]\n\n"
