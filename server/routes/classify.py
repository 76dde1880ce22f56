"""POST /v1/classify: the probability of each label under the model."""

from fastapi import APIRouter, Depends, Request

from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.http.request_body import receive
from medmoe.server.inference.classify import classify_image
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.answers import answers
from medmoe.server.openapi.refusals import IMAGE, NOT_A_FORM, QUESTION, SOURCE, missing, refusals
from medmoe.server.openapi.requests import Named, accepts
from medmoe.server.routes.dependencies import within_rate
from medmoe.server.schemas.classify import (
    AnyClassifyResponse,
    ChoiceResponse,
    ClassifyFields,
    ClassifyRequest,
    ClassifyResponse,
    MultiLabelResponse,
)
from medmoe.server.state import State

router = APIRouter(tags=["inference"])

_LABELS = ["CT", "MRI", "X-ray"]
_EXAMPLES: Named = {
    "likelihood": {"labels": _LABELS},
    "choice": {
        "labels": _LABELS,
        "mode": "choice",
        "permutations": 3,
        "question": "What modality is used to take this image?",
        "include_routing": True,
        "timeout_ms": 30_000,
        "min_confidence": 0.5,
        "modality": "CT",
    },
    "multi_label": {"labels": ["lung", "liver"], "mode": "multi_label"},
}


@router.post(
    "/v1/classify",
    response_model=AnyClassifyResponse,
    responses=answers("classify", *_EXAMPLES) | refusals(missing("labels"), *IMAGE, *SOURCE, *NOT_A_FORM, *QUESTION),
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts(ClassifyRequest, ClassifyFields, examples=_EXAMPLES),
)
async def classify(request: Request) -> ClassifyResponse | ChoiceResponse | MultiLabelResponse:
    """Exact label probabilities under the model. Research software, not a medical device."""
    state, record = State.of(request), RequestRecord.of(request.scope)
    async with state.receiving():
        parsed = await receive(request, ClassifyFields, as_json=ClassifyRequest)
    deadline = state.deadline(parsed.fields.timeout_ms)
    async with abandon_on_disconnect(request.receive):
        return await classify_image(
            state.inference, parsed.fields, image=parsed.image, deadline=deadline, record=record
        )
