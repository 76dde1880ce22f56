"""Serve GET /v1/sources: the DICOMweb sources, and the studies, series and instances that they hold."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from medmoe.server.dicomweb.errors import (
    InstanceNotFound,
    InvalidSourceAnswer,
    SourceNotFound,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
)
from medmoe.server.dicomweb.listing import InstanceList, ListLimit, SeriesList, SourceList, StudyList
from medmoe.server.errors import AuditUnavailable, Overloaded, RateLimited
from medmoe.server.http.disconnect import abandon_on_disconnect
from medmoe.server.http.error_responses import invalid_parameter
from medmoe.server.openapi.refusals import MAY_NOT_ASK, refusals
from medmoe.server.openapi.requests import named
from medmoe.server.openapi.responses import Responses, examples
from medmoe.server.routes.dependencies import audited
from medmoe.server.schemas.inference import DicomUID, SourceName
from medmoe.server.state import State

router = APIRouter(tags=["sources"])

_STUDY = "1.2.826.0.1.3680043.8.498.2"
_SERIES = "1.2.826.0.1.3680043.8.498.3"
_SOURCES_EXAMPLE = {"data": [{"name": "pacs", "store": True}]}
_STUDIES_EXAMPLE = {
    "data": [
        {
            "study": _STUDY,
            "date": "20260514",
            "time": "101500",
            "description": "CT chest",
            "modalities": ["CT"],
            "series_count": 1,
            "instance_count": 1,
        }
    ]
}
_SERIES_EXAMPLE = {
    "data": [{"series": _SERIES, "modality": "CT", "number": 1, "description": "axial", "instance_count": 1}]
}
_INSTANCES_EXAMPLE = {
    "data": [
        {
            "instance": "1.2.826.0.1.3680043.8.498.1",
            "sop_class": "1.2.840.10008.5.1.4.1.1.2",
            "number": 1,
            "rows": 128,
            "columns": 128,
            "frames": None,
        }
    ]
}


def _answer(example: object) -> Responses:
    return examples({"pacs": example})


Source = Annotated[
    SourceName, Path(description="As `GET /v1/sources` names it.", openapi_examples=named({"pacs": "pacs"}))
]
Study = Annotated[DicomUID, Path(description="Study Instance UID.", openapi_examples=named({"a_study": _STUDY}))]
Series = Annotated[DicomUID, Path(description="Series Instance UID.", openapi_examples=named({"a_series": _SERIES}))]
Limit = Annotated[
    ListLimit,
    Query(
        description="The largest number of entries; a source may return fewer.",
        openapi_examples=named({"a_hundred": 100}),
    ),
]
Modality = Annotated[
    str | None,
    Query(
        pattern=r"^[A-Z]{2,16}$",
        description="Studies with a series of this modality.",
        openapi_examples=named({"ct": "CT"}),
    ),
]
Date = Annotated[
    str | None,
    Query(
        pattern=r"^([0-9]{8}-?|-[0-9]{8}|[0-9]{8}-[0-9]{8})$",
        description="Study date, YYYYMMDD, or a range with a hyphen.",
        openapi_examples=named({"this_year": "20260101-"}),
    ),
]

_REFUSALS = refusals(
    *MAY_NOT_ASK,
    SourceNotFound(),
    InstanceNotFound(),
    invalid_parameter("limit"),
    Overloaded(retry_after=1),
    RateLimited(retry_after=1),
    AuditUnavailable(retry_after=5),
    SourceRefused(),
    InvalidSourceAnswer(),
    SourceUnavailable(),
    SourceTimeout(),
    descriptions={
        404: "No such source, or the source has no such study or series",
        502: "The source refuses the service or sends something else",
        422: "A name, a UID or a parameter is not valid",
        429: "As many requests to sources as the service makes, or this key has asked too often; see Retry-After",
        503: "The source cannot be reached, or the audit trail cannot be written",
        504: "The source did not answer in time",
    },
)


@router.get(
    "/v1/sources",
    responses=_answer(_SOURCES_EXAMPLE)
    | refusals(
        *MAY_NOT_ASK,
        RateLimited(retry_after=1),
        AuditUnavailable(retry_after=5),
        descriptions={429: "This key has asked too often; see Retry-After"},
    ),
    dependencies=[Depends(audited)],
)
async def sources(request: Request) -> SourceList:
    """List the DICOMweb sources whose images a request may name."""
    return SourceList(data=State.of(request).dicomweb.sources)


@router.get(
    "/v1/sources/{source}/studies",
    responses=_answer(_STUDIES_EXAMPLE) | _REFUSALS,
    dependencies=[Depends(audited)],
)
async def studies(
    request: Request, source: Source, modality: Modality = None, date: Date = None, limit: Limit = 100
) -> StudyList:
    """List the studies of a source, without anything that names their patients."""
    filters = {"ModalitiesInStudy": modality, "StudyDate": date}
    async with abandon_on_disconnect(request.receive):
        found = await State.of(request).dicomweb.list_studies(
            source, filters={name: value for name, value in filters.items() if value is not None}, limit=limit
        )
    return StudyList(data=found)


@router.get(
    "/v1/sources/{source}/studies/{study}/series",
    responses=_answer(_SERIES_EXAMPLE) | _REFUSALS,
    dependencies=[Depends(audited)],
)
async def series(request: Request, source: Source, study: Study, limit: Limit = 100) -> SeriesList:
    """List the series of a study."""
    async with abandon_on_disconnect(request.receive):
        return SeriesList(data=await State.of(request).dicomweb.list_series(source, study, limit=limit))


@router.get(
    "/v1/sources/{source}/studies/{study}/series/{series}/instances",
    responses=_answer(_INSTANCES_EXAMPLE) | _REFUSALS,
    dependencies=[Depends(audited)],
)
async def instances(request: Request, source: Source, study: Study, series: Series, limit: Limit = 100) -> InstanceList:
    """List the instances of a series; `/v1/vqa`, `/v1/classify`, `/v1/explain` and `/v1/render` take images of them."""
    async with abandon_on_disconnect(request.receive):
        found = await State.of(request).dicomweb.list_instances(source, study, series, limit=limit)
    return InstanceList(data=found)
