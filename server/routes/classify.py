"""POST /v1/classify: the probability of each label under the model."""

from functools import partial

from fastapi import APIRouter, Depends, Request, Response

from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.http.request_body import receive
from medmoe.server.inference.classify import classify_image
from medmoe.server.inference.report import ReportDemand, answer_with_report, classify_content
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.refusals import IMAGE, NO_MODEL, NOT_A_FORM, QUESTION, REPORT, SOURCE, missing, refusals
from medmoe.server.openapi.requests import Named, accepts
from medmoe.server.openapi.responses import answers, with_reports
from medmoe.server.routes.dependencies import within_rate
from medmoe.server.schemas.classify import (
    AnyClassifyResponse,
    ChoiceResponse,
    ClassifyFields,
    ClassifyRequest,
    ClassifyResponse,
    MultiLabelResponse,
)
from medmoe.server.schemas.inference import SentImage
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
        "min_label_mass": 0.001,
        "modality": "CT",
    },
    "multi_label": {"labels": ["lung", "liver"], "mode": "multi_label"},
}


@router.post(
    "/v1/classify",
    response_model=AnyClassifyResponse,
    responses=with_reports(answers("classify", *_EXAMPLES))
    | refusals(missing("labels"), *IMAGE, *SOURCE, *REPORT, *NOT_A_FORM, *QUESTION, *NO_MODEL),
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts(ClassifyRequest, ClassifyFields, examples=_EXAMPLES),
)
async def classify(request: Request) -> ClassifyResponse | ChoiceResponse | MultiLabelResponse | Response:
    """Return exact label probabilities under the model. Research software, not a medical device."""
    state, record = State.of(request), RequestRecord.of(request.scope)
    async with state.receiving():
        parsed = await receive(request, ClassifyFields, as_json=ClassifyRequest)
    deadline = state.deadline(parsed.fields.timeout_ms)
    model = state.models.choose(parsed.fields.model, record)
    demand = ReportDemand.of(request.headers, parsed.fields)

    async def ask(image: SentImage) -> ClassifyResponse | ChoiceResponse | MultiLabelResponse:
        return await classify_image(model.inference, parsed.fields, image=image, deadline=deadline, record=record)

    async with abandon_on_disconnect(request.receive):
        if demand is None:
            return await ask(parsed.image)
        return await answer_with_report(
            demand,
            images=model.images,
            dicomweb=state.dicomweb,
            image=parsed.image,
            ask=ask,
            content=partial(classify_content, parsed.fields),
            deadline=deadline,
            record=record,
        )
