"""GET /v1/router/stats: the distribution of tokens over experts."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from medmoe.server.http.error_responses import invalid_parameter
from medmoe.server.openapi.refusals import MAY_NOT_READ_STATS, NO_MODEL, refusals
from medmoe.server.openapi.requests import named
from medmoe.server.openapi.responses import answers
from medmoe.server.router_stats.sliding_window import BUCKET_SECONDS, LONGEST_SECONDS
from medmoe.server.routes.dependencies import Chosen, may_read_stats
from medmoe.server.schemas.router_stats import RouterStatsResponse
from medmoe.server.state import State

router = APIRouter(tags=["experts"])

Window = Annotated[
    int | None,
    Query(
        ge=BUCKET_SECONDS,
        le=LONGEST_SECONDS,
        description="Count only the last so many seconds, in steps of ten; when absent everything since the start.",
        openapi_examples=named({"an_hour": 3600}),
    ),
]


@router.get(
    "/v1/router/stats",
    responses=answers("router_stats", "an_hour")
    | refusals(
        *MAY_NOT_READ_STATS,
        *NO_MODEL,
        invalid_parameter("window"),
        descriptions={422: "The window is not a number of seconds that is kept"},
    ),
    dependencies=[Depends(may_read_stats)],
)
async def router_stats(request: Request, window: Window = None, model: Chosen = None) -> RouterStatsResponse:
    """Return load, evenness and dead experts of each MoE layer: overall, by kind of token, by route, by modality.

    With a reference in the checkpoint, also how far the routing has drifted from it.
    """
    return State.of(request).models.find(model).router_stats.report(window=window)
