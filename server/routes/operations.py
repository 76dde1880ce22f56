"""Serve GET /health/live, /health/ready and /metrics: probes of an orchestrator and a Prometheus scraper."""

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from medmoe.server.admission.readiness import Phase
from medmoe.server.errors import EngineDeadError
from medmoe.server.openapi.refusals import ENGINE_DEAD, FOREIGN_PAGE, MAY_NOT_READ_STATS, NOT_READY, refusals
from medmoe.server.openapi.responses import answers, text
from medmoe.server.routes.dependencies import may_read_stats
from medmoe.server.schemas.operations import Health
from medmoe.server.state import State

router = APIRouter(tags=["operations"])


@router.get("/health/live", responses=answers("health", "starting", "ready") | refusals(*FOREIGN_PAGE, *ENGINE_DEAD))
async def live(request: Request) -> Health:
    """Answer 200 unless only a restart can help; a model that is still loading is alive."""
    state = State.of(request)
    if state.readiness.phase is Phase.FAILED:
        raise EngineDeadError("the engine has stopped")
    return Health(status=state.readiness.phase)


@router.get("/health/ready", responses=answers("health", "ready") | refusals(*FOREIGN_PAGE, *NOT_READY))
async def ready(request: Request) -> Health:
    """Answer 200 when requests are answered: the warm-up question has been answered, and the engine is healthy."""
    state = State.of(request)
    state.readiness.require_staying()
    with state.readiness.watch():
        await state.active.engine.check_health()
    return Health(status=state.readiness.phase)


@router.get(
    "/metrics",
    response_class=Response,
    responses=text("text/plain", "metrics.txt") | refusals(*MAY_NOT_READ_STATS),
    dependencies=[Depends(may_read_stats)],
)
async def metrics(request: Request) -> Response:
    """Return Prometheus text: the series of the service, then those of the engine."""
    state = State.of(request)
    return Response(state.metrics.exposition() + state.active.engine.metrics(), media_type=CONTENT_TYPE_LATEST)
