"""POST /v1/decisions: the probabilities of /v1/classify in the format of OpenAI's API."""

from fastapi import APIRouter, Depends, Request

from medmoe.server.errors import UnsupportedContentType, UnsupportedParameter
from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.inference.openai.decision_request import receive_decision
from medmoe.server.inference.openai.decisions import decide
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.refusals import IMAGE, NO_MODEL, NOT_JSON, QUESTION, missing, refusals
from medmoe.server.openapi.requests import EXAMPLE_IMAGE, Named, accepts_json
from medmoe.server.openapi.responses import answers
from medmoe.server.routes.dependencies import within_rate
from medmoe.server.schemas.openai.decision_request import DecisionRequest
from medmoe.server.schemas.openai.decision_response import Decision
from medmoe.server.state import State

router = APIRouter(tags=["inference"])

_INPUT = [{"role": "user", "content": [{"type": "input_image", "image_url": EXAMPLE_IMAGE}]}]
_EXAMPLES: Named = {
    "predicate": {
        "input": _INPUT,
        "questions": [{"type": "predicate", "instructions": "Is this a CT?", "name": "is_ct"}],
    },
    "every_kind": {
        "model": "medmoe-tiny",
        "input": _INPUT,
        "questions": [
            {"type": "predicate", "instructions": "Is there an abnormality in the image?", "name": "abnormal"},
            {
                "type": "choice",
                "instructions": "What modality is used to take this image?",
                "choices": [{"value": "CT"}, {"value": "MRI"}, {"value": "X-ray"}],
            },
            {"type": "choice", "instructions": "Is the lung healthy?", "choices": [{"value": True}, {"value": False}]},
            {
                "type": "score",
                "instructions": "How large is the lung?",
                "levels": [{"label": "small"}, {"label": "medium"}, {"label": "large"}],
            },
        ],
        "include_routing": True,
        "timeout_ms": 30_000,
        "min_confidence": 0.5,
        "min_label_mass": 0.001,
        "modality": "CT",
    },
}
_NAMES = {"image": "input.0.content.0.image_url", "question": "questions.0.instructions"}
_REFUSED = (
    UnsupportedParameter("only messages are offered", param="input.0.type"),
    *NO_MODEL,
    UnsupportedContentType("send application/json"),
)


@router.post(
    "/v1/decisions",
    response_model=Decision,
    responses=answers("decisions", *_EXAMPLES)
    | refusals(missing("questions"), *IMAGE, *QUESTION, *_REFUSED, names=_NAMES, descriptions=NOT_JSON),
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts_json(DecisionRequest, examples=_EXAMPLES),
)
async def decisions(request: Request) -> Decision:
    """Answer typed questions about one medical image by exact probabilities, as OpenAI's API does.

    Each question is a classification with its own words; answers that the service abstains from are refusals. Research
    software, not a medical device.
    """
    state, record = State.of(request), RequestRecord.of(request.scope)
    async with state.receiving():
        asked = await receive_decision(request)
    record.names = asked.names
    model = state.models.choose(asked.request.model, record)
    deadline = state.deadline(asked.request.timeout_ms)
    async with abandon_on_disconnect(request.receive):
        return await decide(model.inference, asked, deadline=deadline, record=record)
