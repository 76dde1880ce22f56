"""POST /v1/render and /v1/series/render: an image, or slices of a series, as PNG."""

from fastapi import APIRouter, Depends, Request

from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.http.request_body import receive, receive_series
from medmoe.server.imaging.render import render_png
from medmoe.server.inference.series.render import render_series
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.refusals import IMAGE, NO_MODEL, NOT_A_FORM, SERIES, SOURCE, missing, refusals
from medmoe.server.openapi.requests import Named, accepts
from medmoe.server.openapi.responses import answers
from medmoe.server.routes.dependencies import within_rate
from medmoe.server.schemas.series import FIELD_NAMES, SlicesFields
from medmoe.server.schemas.views.render import RenderFields, RenderRequest, RenderResponse
from medmoe.server.schemas.views.series_render import SeriesRenderRequest, SeriesRenderResponse
from medmoe.server.state import State

SERIES_PATH = "/v1/series/render"

router = APIRouter(tags=["images"])

_EXAMPLES: Named = {"for_people": {"view": "frame", "timeout_ms": 10_000}, "for_the_model": {"view": "model"}}


@router.post(
    "/v1/render",
    response_model=RenderResponse,
    responses=answers("render", "for_people") | refusals(missing("image"), *IMAGE, *SOURCE, *NOT_A_FORM, *NO_MODEL),
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
    model = state.models.choose(parsed.fields.model, record)
    async with abandon_on_disconnect(request.receive):
        return await render_png(
            model.images,
            parsed.fields,
            image=parsed.image,
            admission=state.admission,
            deadline=deadline,
            record=record,
        )


@router.post(
    SERIES_PATH,
    response_model=SeriesRenderResponse,
    responses=answers("series_render", "for_people")
    | refusals(missing("series"), *IMAGE, *SOURCE, *SERIES, *NOT_A_FORM, names=FIELD_NAMES),
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts(
        SeriesRenderRequest, SlicesFields, examples={"for_people": {"slices": 2, "timeout_ms": 30_000}}, series=True
    ),
)
async def render_slices(request: Request) -> SeriesRenderResponse:
    """Render the slices that `/v1/series` asks about with the same fields, and refuse what it refuses."""
    state, record = State.of(request), RequestRecord.of(request.scope)
    record.names = FIELD_NAMES
    state.active.series.places.require(record)
    async with state.receiving():
        parsed = await receive_series(
            request, SlicesFields, as_json=SeriesRenderRequest, max_files=state.settings.max_series_files
        )
    deadline = state.deadline(parsed.fields.timeout_ms)
    model = state.models.choose(None, record)
    async with abandon_on_disconnect(request.receive):
        return await render_series(model.series, parsed.fields, series=parsed.series, deadline=deadline, record=record)
