"""POST /v1/vqa: a question about a picture, answered whole or as a stream."""

from fastapi import APIRouter, Depends, Request, Response

from medmoe.server.answering import answer
from medmoe.server.authentication import within_rate
from medmoe.server.event_stream import whole_or_streamed
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
    async with state.receiving():
        received = await receive(request, VQAFields, as_json=VQARequest)
    deadline = state.deadline(received.fields.timeout_ms)
    pieces = answer(state, received.fields, image=received.image, deadline=deadline, record=record)
    return await whole_or_streamed(
        request,
        pieces,
        stream=received.fields.stream,
        deadline=deadline,
        record=record,
        whole=lambda response: response,
    )
