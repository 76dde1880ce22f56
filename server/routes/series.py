"""POST /v1/series: an answer, or label probabilities, about the slices of a series."""

from fastapi import APIRouter, Depends, Request, Response

from medmoe.server.errors import InvalidField
from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.http.request_body import receive_series
from medmoe.server.http.sse import own_events, whole_or_streamed
from medmoe.server.inference.report import ReportDemand
from medmoe.server.inference.series.answer import answer_series
from medmoe.server.inference.series.report import answer_series_with_report
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.refusals import (
    IMAGE,
    NO_MODEL,
    NOT_A_FORM,
    QUESTION,
    REPORT,
    SERIES,
    SOURCE,
    missing,
    refusals,
)
from medmoe.server.openapi.requests import Named, accepts
from medmoe.server.openapi.responses import answers_and_stream, with_reports
from medmoe.server.routes.dependencies import within_rate
from medmoe.server.schemas.series import (
    FIELD_NAMES,
    AnySeriesResponse,
    SeriesFields,
    SeriesRequest,
    SeriesResponse,
)
from medmoe.server.state import State

PATH = "/v1/series"

router = APIRouter(tags=["inference"])

_QUESTION = "Which part of the body does this image belong to?"
_EXAMPLES: Named = {
    "question": {"question": _QUESTION, "slices": 2, "aggregate": "majority", "timeout_ms": 30_000},
    "labels": {"labels": ["CT", "MRI", "X-ray"], "slices": 2},
    "streamed": {"question": _QUESTION, "slices": 2, "stream": True},
}


@router.post(
    PATH,
    response_model=AnySeriesResponse,
    responses=with_reports(answers_and_stream("series", "question", "labels"))
    | refusals(
        missing("series"), *IMAGE, *SOURCE, *SERIES, *REPORT, *NOT_A_FORM, *QUESTION, *NO_MODEL, names=FIELD_NAMES
    ),
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts(SeriesRequest, SeriesFields, examples=_EXAMPLES, series=True),
)
async def series(request: Request) -> SeriesResponse | Response:
    """Ask about evenly spread slices of one series: DICOM files, a ZIP archive, a multi-frame file, or a source's.

    The slices are checked to be one volume, ordered by their position, and shown in one window. Research software, not
    a medical device.
    """
    state, record = State.of(request), RequestRecord.of(request.scope)
    record.names = FIELD_NAMES
    state.active.series.places.require(record)
    async with state.receiving():
        parsed = await receive_series(
            request, SeriesFields, as_json=SeriesRequest, max_files=state.settings.max_series_files
        )
    deadline = state.deadline(parsed.fields.timeout_ms)
    model = state.models.choose(parsed.fields.model, record)
    demand = ReportDemand.of(request.headers, parsed.fields)
    if demand is not None:
        if parsed.fields.stream:
            raise InvalidField("a stream carries no report", param="stream")
        async with abandon_on_disconnect(request.receive):
            return await answer_series_with_report(
                model.series,
                demand,
                parsed.fields,
                dicomweb=state.dicomweb,
                series=parsed.series,
                deadline=deadline,
                record=record,
            )
    pieces = answer_series(model.series, parsed.fields, series=parsed.series, deadline=deadline, record=record)
    return await whole_or_streamed(
        request,
        pieces,
        stream=parsed.fields.stream,
        deadline=deadline,
        record=record,
        last=SeriesResponse,
        whole=lambda response: response,
        events=own_events,
    )
