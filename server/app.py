"""create_app: wiring and nothing else.

No settings are read here and no engine is built: both are given, so that a test's app and the real one differ only in
what they were given.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version

from fastapi import FastAPI

from medmoe.server import error_responses
from medmoe.server.body_limit import BodyLimit
from medmoe.server.engine.base import Engine
from medmoe.server.response_headers import ResponseHeaders
from medmoe.server.routes import chat, classify, docs, metadata, models, operations, router, vqa
from medmoe.server.settings import Settings
from medmoe.server.state import State
from medmoe.server.telemetry import Telemetry
from medmoe.server.warm_up import start_up

log = logging.getLogger("medmoe.start")

_DESCRIPTION = "Med-MoE vision-language models over HTTP. Research software, not a medical device."


def create_app(settings: Settings, engine: Engine, *, on_failure: Callable[[], None] = lambda: None) -> FastAPI:
    """The whole service; `on_failure` is called once when the engine is beyond help.

    Raises ConfigError or CheckpointError when the checkpoint directory cannot be read.
    """
    state = State(settings, engine, on_failure=on_failure)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # In the background, so that /health/live answers while a large model loads.
        state.starting = asyncio.create_task(start_up(state))
        try:
            yield
        finally:
            await _shut_down(state, state.starting)

    app = FastAPI(
        title="Med-MoE",
        description=_DESCRIPTION,
        version=version("medmoe"),
        lifespan=lifespan,
        # Served by routes/docs.py, which asks for the key.
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.medmoe = state
    for module in (vqa, classify, chat, router, models, metadata, operations, docs):
        app.include_router(module.router)
    error_responses.install(app)
    # Last added is outermost: headers, then the record, then the limit.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Telemetry, on_finish=state.publish, sample=state.traces is not None)
    app.add_middleware(ResponseHeaders)
    return app


async def _shut_down(state: State, starting: asyncio.Task[None]) -> None:
    """Refuse what comes, finish what is inside, free the model."""
    state.readiness.drain()
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    if state.watching is not None:
        state.watching.cancel()
    if not await state.admission.wait_idle(state.settings.drain_seconds):
        log.warning("shutting down with requests in flight", extra={"fields": {"count": state.admission.in_flight}})
    await state.engine.close()
    if state.traces is not None:
        await asyncio.to_thread(state.traces.close)
    state.close()
