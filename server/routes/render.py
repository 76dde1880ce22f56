"""POST /v1/render: an image as PNG, as people or as the model see it."""

from fastapi import APIRouter, Depends, Request

from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.http.request_body import receive
from medmoe.server.imaging.render import render_png
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.answers import answers
from medmoe.server.openapi.refusals import IMAGE, NOT_A_FORM, SOURCE, missing, refusals
from medmoe.server.openapi.requests import Named, accepts
from medmoe.server.routes.dependencies import within_rate
from medmoe.server.schemas.render import RenderFields, RenderRequest, RenderResponse
from medmoe.server.state import State

router = APIRouter(tags=["images"])

_EXAMPLES: Named = {"for_people": {"view": "frame", "timeout_ms": 10_000}, "for_the_model": {"view": "model"}}


@router.post(
    "/v1/render",
    response_model=RenderResponse,
    responses=answers("render", "for_people") | refusals(missing("image"), *IMAGE, *SOURCE, *NOT_A_FORM),
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts(RenderRequest, RenderFields, examples=_EXAMPLES),
)
async def render(request: Request) -> RenderResponse:
    """Render a DICOM frame or any other image as PNG, with the window that was applied and those to choose from.

    Images are decoded as `/v1/vqa` and `/v1/classify` decode them: an image that renders here is accepted there.
    """
    state, record = State.of(request), RequestRecord.of(request.scope)
    async with state.receiving():
        parsed = await receive(request, RenderFields, as_json=RenderRequest)
    deadline = state.deadline(parsed.fields.timeout_ms)
    async with abandon_on_disconnect(request.receive):
        return await render_png(
            state.images,
            parsed.fields,
            image=parsed.image,
            admission=state.admission,
            deadline=deadline,
            record=record,
        )
