"""POST /v1/render: the picture in a file that browsers cannot show, as people or as the model see it."""

import asyncio
import base64
import io

from fastapi import APIRouter, Depends, Request
from PIL import Image

from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.http.request_body import receive
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.answers import answers
from medmoe.server.openapi.refusals import NOT_A_FORM, PICTURE, missing, refusals
from medmoe.server.openapi.requests import Named, accepts
from medmoe.server.routes.dependencies import within_rate
from medmoe.server.schemas.render import RenderFields, RenderRequest, RenderResponse
from medmoe.server.state import State

# Not "inference": the engine has no part in it.
router = APIRouter(tags=["pictures"])

_EXAMPLES: Named = {"for_people": {"view": "frame", "timeout_ms": 10_000}, "for_the_model": {"view": "model"}}


@router.post(
    "/v1/render",
    response_model=RenderResponse,
    responses=answers("render", "for_people") | refusals(missing("image"), *PICTURE, *NOT_A_FORM),
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts(RenderRequest, RenderFields, examples=_EXAMPLES),
)
async def render(request: Request) -> RenderResponse:
    """A DICOM frame, or any other picture, as PNG, with the window that was applied and what others there are.

    Admitted and decoded as the pictures of questions are: whatever is shown here will be taken there.
    """
    state, record = State.of(request), RequestRecord.of(request.scope)
    async with state.receiving():
        received = await receive(request, RenderFields, as_json=RenderRequest)
    fields = received.fields
    deadline = state.deadline(fields.timeout_ms)
    async with (
        abandon_on_disconnect(request.receive),
        state.admission.slot(deadline=deadline, record=record),
    ):
        decoded = await state.render_image(received.image, fields, view=fields.view, deadline=deadline, record=record)
        url = await asyncio.to_thread(_data_url, decoded.image)
    return RenderResponse(
        image=url,
        width=decoded.width,
        height=decoded.height,
        rendering=decoded.rendering,
        windowing=decoded.windowing,
    )


def _data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    # Whoever moves a slider waits for it; smaller files would take several times as long.
    image.save(file, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
