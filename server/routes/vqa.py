"""POST /v1/vqa: the answer to a question about an image, whole or as a stream."""

from functools import partial

from fastapi import APIRouter, Depends, Request, Response

from medmoe.server.admission.deadline import Deadline
from medmoe.server.errors import InvalidField
from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.http.request_body import ParsedRequest, receive
from medmoe.server.http.sse import own_events, whole_or_streamed
from medmoe.server.inference.report import ReportDemand, answer_with_report, vqa_content
from medmoe.server.inference.vqa import answer, whole_answer
from medmoe.server.models.served_model import ServedModel
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.refusals import IMAGE, NO_MODEL, NOT_A_FORM, QUESTION, REPORT, SOURCE, missing, refusals
from medmoe.server.openapi.requests import Named, accepts
from medmoe.server.openapi.responses import answers_and_stream, with_reports
from medmoe.server.routes.dependencies import within_rate
from medmoe.server.schemas.vqa import VQAFields, VQARequest, VQAResponse
from medmoe.server.state import State

router = APIRouter(tags=["inference"])

_QUESTION = "What modality is used to take this image?"
_EXAMPLES: Named = {
    "question": {"question": _QUESTION},
    "every_option": {
        "question": _QUESTION,
        "max_tokens": 32,
        "temperature": 0.7,
        "seed": 7,
        "include_routing": True,
        "timeout_ms": 30_000,
        "min_confidence": 0.5,
        "modality": "CT",
    },
    "streamed": {"question": _QUESTION, "stream": True},
}


@router.post(
    "/v1/vqa",
    response_model=VQAResponse,
    responses=with_reports(answers_and_stream("vqa", "question", "every_option"))
    | refusals(missing("question"), *IMAGE, *SOURCE, *REPORT, *NOT_A_FORM, *QUESTION, *NO_MODEL),
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts(VQARequest, VQAFields, examples=_EXAMPLES),
)
async def vqa(request: Request) -> VQAResponse | Response:
    """Answer a question about one medical image. Research software, not a medical device."""
    state, record = State.of(request), RequestRecord.of(request.scope)
    async with state.receiving():
        parsed = await receive(request, VQAFields, as_json=VQARequest)
    deadline = state.deadline(parsed.fields.timeout_ms)
    model = state.models.choose(parsed.fields.model, record)
    demand = ReportDemand.of(request.headers, parsed.fields)
    if demand is not None:
        return await _report(request, parsed, demand, model=model, deadline=deadline)
    pieces = answer(model.inference, parsed.fields, image=parsed.image, deadline=deadline, record=record)
    return await whole_or_streamed(
        request,
        pieces,
        stream=parsed.fields.stream,
        deadline=deadline,
        record=record,
        last=VQAResponse,
        whole=lambda response: response,
        events=own_events,
    )


async def _report(
    request: Request, parsed: ParsedRequest[VQAFields], demand: ReportDemand, *, model: ServedModel, deadline: Deadline
) -> VQAResponse | Response:
    state, record, fields = State.of(request), RequestRecord.of(request.scope), parsed.fields
    if fields.stream:
        raise InvalidField("a stream carries no report", param="stream")

    async def ask(file: str | bytes) -> VQAResponse:
        return await whole_answer(answer(model.inference, fields, image=file, deadline=deadline, record=record))

    async with abandon_on_disconnect(request.receive):
        return await answer_with_report(
            demand,
            images=model.images,
            dicomweb=state.dicomweb,
            image=parsed.image,
            ask=ask,
            content=partial(vqa_content, fields),
            deadline=deadline,
            record=record,
        )
