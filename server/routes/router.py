"""GET /v1/router/stats: which experts this service's tokens have gone to."""

from fastapi import APIRouter, Depends, Request

from medmoe.server.authentication import authenticated
from medmoe.server.request_docs import REFUSALS
from medmoe.server.schemas import RouterStatsResponse
from medmoe.server.state import State

router = APIRouter(tags=["experts"])


@router.get("/v1/router/stats", responses={401: REFUSALS[401]}, dependencies=[Depends(authenticated)])
async def router_stats(request: Request) -> RouterStatsResponse:
    """Load, evenness and dead experts of every MoE layer: overall, by kind of token, by route."""
    return State.of(request).router_stats.report()
