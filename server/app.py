"""Build the app from settings and an engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.routing import APIRoute

from medmoe.server.configuration.batch_settings import FORM_BYTES
from medmoe.server.engine.base import Engine
from medmoe.server.http import error_responses
from medmoe.server.http.body_limit import BodyLimit
from medmoe.server.http.middleware import RequestMiddleware
from medmoe.server.http.origin import OriginCheck
from medmoe.server.http.security_headers import ResponseHeaders
from medmoe.server.lifecycle.draining import drain
from medmoe.server.lifecycle.supervisor import start_up
from medmoe.server.models.served_model import BuildEngine
from medmoe.server.rollout.rollout import Rollout
from medmoe.server.routes import classify, docs, metadata, operations, page, router_stats, series, sources, vqa
from medmoe.server.routes.admin import checkpoint
from medmoe.server.routes.openai import batches, chat, decisions, files
from medmoe.server.routes.openai.storage import TAG
from medmoe.server.routes.views import explain, render
from medmoe.server.settings import Settings
from medmoe.server.state import State

_DESCRIPTION = "Med-MoE vision-language models over HTTP. Research software, not a medical device."
_ROUTERS = (
    vqa.router,
    classify.router,
    series.router,
    explain.router,
    chat.router,
    decisions.router,
    files.router,
    batches.router,
    render.router,
    sources.router,
    router_stats.router,
    metadata.router,
    checkpoint.router,
    operations.router,
    docs.router,
    page.router,
)
"""In the order of the API's documentation."""


def create_app(
    settings: Settings,
    engine: Engine,
    *,
    on_failure: Callable[[], None] = lambda: None,
    build: BuildEngine | None = None,
) -> FastAPI:
    """Return the app; it calls `on_failure` once when the engine has failed for good.

    `build` builds the engine that replaces a dead one, where the settings allow it, and those of other checkpoints;
    without it the first death is final. Raises ConfigError or CheckpointError when the checkpoint directory cannot be
    read.
    """
    state = State(settings, engine, on_failure=on_failure, build=build)
    app = FastAPI(
        title="Med-MoE",
        description=_DESCRIPTION,
        version=version("medmoe"),
        lifespan=_lifespan,
        # routes/docs.py serves it, to authenticated callers.
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.medmoe = state
    app.state.rollout = Rollout(state)
    for router in _ROUTERS:
        app.include_router(router)
    for route in app.routes:
        if isinstance(route, APIRoute) and "GET" in route.methods:
            # Monitors ask with it. What sends the answer leaves out the body.
            route.methods.add("HEAD")
    error_responses.install(app)
    _add_middleware(app, state)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the service in the background, so that /health/live answers while a large model loads; shut it down."""
    state: State = app.state.medmoe
    state.starting = asyncio.create_task(start_up(state))
    if state.batches is not None:
        state.batches.start(app)
    authenticating = asyncio.create_task(state.authenticator.watch(state.admission.end_revoked))
    try:
        yield
    finally:
        authenticating.cancel()
        await asyncio.gather(authenticating, return_exceptions=True)
        await _shut_down(state, app.state.rollout, state.starting)


def _add_middleware(app: FastAPI, state: State) -> None:
    """Add the middleware, the innermost first: a request passes headers, record, origin and limit, in this order."""
    settings = state.settings
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        max_at_once=settings.max_uploads,
        max_memory=settings.body_memory_mib * 2**20,
        larger={
            **dict.fromkeys((series.PATH, render.SERIES_PATH), (settings.max_series_bytes, "MEDMOE_MAX_SERIES_BYTES")),
            files.PATH: (settings.batch_max_bytes + FORM_BYTES, "MEDMOE_BATCH_MAX_BYTES"),
        },
    )
    app.add_middleware(OriginCheck, settings=settings)
    app.add_middleware(
        RequestMiddleware,
        on_finish=state.publish,
        paths=[route.path for route in app.routes if isinstance(route, APIRoute) and not route.param_convertors],
        sample=state.traces is not None,
        auditor=state.auditor,
    )
    app.add_middleware(ResponseHeaders)


def costly_paths(app: FastAPI) -> frozenset[str]:
    """Return the paths of the routes that need a slot; none has parameters."""
    return frozenset(
        route.path
        for route in app.routes
        if isinstance(route, APIRoute)
        and "POST" in route.methods
        and TAG not in route.tags
        and not route.path.startswith("/admin/")
    )


async def _shut_down(state: State, rollout: Rollout, starting: asyncio.Task[None]) -> None:
    """Refuse new requests, finish the running ones, and close the engine."""
    if state.batches is not None:
        await state.batches.stop()
    await drain(state)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await rollout.close()
    await asyncio.gather(*(model.close() for model in state.models))
    if state.audit is not None:
        await state.audit.close()
    if state.traces is not None:
        await asyncio.to_thread(state.traces.close)
