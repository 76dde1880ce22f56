"""GET /v1/router/stats: which experts this service's tokens have gone to."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from medmoe.server.authentication import authenticated
from medmoe.server.count_ring import BUCKET_SECONDS, LONGEST_SECONDS
from medmoe.server.request_docs import REFUSALS
from medmoe.server.router_schemas import RouterStatsResponse
from medmoe.server.state import State

router = APIRouter(tags=["experts"])

Window = Annotated[
    int | None,
    Query(
        ge=BUCKET_SECONDS,
        le=LONGEST_SECONDS,
        description="Count only the last so many seconds, in steps of ten; when absent everything since the start.",
    ),
]


@router.get(
    "/v1/router/stats",
    responses={401: REFUSALS[401], 422: REFUSALS[422]},
    dependencies=[Depends(authenticated)],
)
async def router_stats(request: Request, window: Window = None) -> RouterStatsResponse:
    """Load, evenness and dead experts of every MoE layer: overall, by kind of token, by route, by stated modality.

    With a reference in the checkpoint, also how far the routing has drifted from it.
    """
    return State.of(request).router_stats.report(window=window)
