"""POST /v1/vqa: a question about a picture, answered whole or as a stream."""

from contextlib import aclosing

from fastapi import APIRouter, Depends, Request, Response

from medmoe.server.answering import answer
from medmoe.server.authentication import within_rate
from medmoe.server.disconnect import abandon_on_disconnect
from medmoe.server.event_stream import EventStream
from medmoe.server.request_body import receive
from medmoe.server.request_docs import REFUSALS, STREAMED, accepts
from medmoe.server.request_record import RequestRecord
from medmoe.server.schemas import VQAFields, VQARequest, VQAResponse
from medmoe.server.state import State

router = APIRouter(tags=["inference"])

_EXAMPLE = {"question": "Is there a pleural effusion?", "max_tokens": 32}


@router.post(
    "/v1/vqa",
    response_model=VQAResponse,
    responses=REFUSALS | STREAMED,
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts(VQARequest, VQAFields, example=_EXAMPLE),
)
async def vqa(request: Request) -> VQAResponse | Response:
    """Answer a question about one medical picture. Research software, not a medical device."""
    state, record = State.of(request), RequestRecord.of(request.scope)
    state.readiness.require()
    # Before the body is read: a full house should not also fill its memory.
    state.admission.refuse_when_full()
    async with state.deadline(None).guard():
        received = await receive(request, VQAFields, as_json=VQARequest)
    deadline = state.deadline(received.fields.timeout_ms)
    pieces = answer(state, received.fields, image=received.image, deadline=deadline, record=record)
    async with abandon_on_disconnect(request.receive):
        if received.fields.stream:
            return EventStream(await anext(pieces), pieces, deadline=deadline, record=record)
        async with aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, VQAResponse):
                    return piece
    raise AssertionError("an answer ends with its response or with an error")
