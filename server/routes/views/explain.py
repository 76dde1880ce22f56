"""POST /v1/explain: where an answer, or a label, comes from in the image."""

from fastapi import APIRouter, Depends, Request

from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.http.request_body import receive
from medmoe.server.inference.explain.answer import explain_image
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.refusals import IMAGE, NO_MODEL, NOT_A_FORM, QUESTION, SOURCE, missing, refusals
from medmoe.server.openapi.requests import Named, accepts
from medmoe.server.openapi.responses import answers
from medmoe.server.routes.dependencies import within_rate
from medmoe.server.schemas.views.explain import ExplainFields, ExplainRequest, ExplainResponse
from medmoe.server.state import State

router = APIRouter(tags=["inference"])

_QUESTION = "Which part of the body does this image belong to?"
_EXAMPLES: Named = {
    "question": {"question": _QUESTION, "grid": 4, "max_tokens": 8, "timeout_ms": 60_000},
    "label": {"labels": ["CT", "MRI", "X-ray"], "label": "CT", "grid": 4},
}


@router.post(
    "/v1/explain",
    response_model=ExplainResponse,
    responses=answers("explain", *_EXAMPLES)
    | refusals(missing("image"), *IMAGE, *SOURCE, *NOT_A_FORM, *QUESTION, *NO_MODEL),
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts(ExplainRequest, ExplainFields, examples=_EXAMPLES),
)
async def explain(request: Request) -> ExplainResponse:
    """Map how much less likely an answer becomes when each part of the image is covered.

    The map shows what the model reacts to, not the outline of a finding. Research software, not a medical device.
    """
    state, record = State.of(request), RequestRecord.of(request.scope)
    state.active.explain.places.require(record)
    async with state.receiving():
        parsed = await receive(request, ExplainFields, as_json=ExplainRequest)
    deadline = state.deadline(parsed.fields.timeout_ms)
    model = state.models.choose(parsed.fields.model, record)
    async with abandon_on_disconnect(request.receive):
        return await explain_image(model.explain, parsed.fields, image=parsed.image, deadline=deadline, record=record)
