"""From a process that listens to a service that has proven it can answer, and back there when its engine has died.

Apart from app.py, which only wires: the order here is the meaning of /health/ready.
"""

import asyncio
import contextlib
import logging
import math
import time

from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.server.admission.readiness import Phase
from medmoe.server.engine.base import Engine
from medmoe.server.errors import DeploymentError, EngineDeadError
from medmoe.server.lifecycle.restart_policy import RestartPolicy
from medmoe.server.lifecycle.warm_up import warm_up
from medmoe.server.lifecycle.watchdog import HangWatchdog
from medmoe.server.state import State

log = logging.getLogger("medmoe.start")

_WATCH_SECONDS = 0.25
"""Between two looks at the engine; a death is noticed within a second even when the event loop is busy."""
_FINAL = (CheckpointError, ConfigError, DeploymentError)
"""What another attempt to start would meet again."""


async def start_up(state: State) -> None:
    """Start the engine, answer one question as any client's is answered, then be ready. Failure is final."""
    begun = time.monotonic()
    try:
        await asyncio.gather(state.engine.start(), state.decoders.start(), state.checkpoint.hash_weights())
        state.router_stats.reference = state.checkpoint.routing_reference
        await warm_up(state, state.engine.current)
    except Exception as error:
        # Nobody awaits this task while the server runs, so whatever it was must end here, and visibly. Its text is
        # safe to write: no client has been heard yet.
        log.critical("start failed", extra={"fields": {"exception": type(error).__name__, "reason": str(error)}})
        state.readiness.fail()
        return
    state.router_stats.reset()
    _ready(state, seconds=time.monotonic() - begun)
    state.watching = asyncio.create_task(supervise(state))


async def supervise(state: State) -> None:
    """Watch the engine of a service that is ready; replace it when it dies, as often as the settings allow."""
    settings = state.settings
    policy = RestartPolicy(
        attempts=settings.engine_restarts,
        window_seconds=settings.engine_restart_window_seconds,
        first_delay=settings.engine_restart_delay_seconds,
    )
    while True:
        await _watch(state)
        if state.readiness.phase is not Phase.RESTARTING:
            return
        await _restart(state, policy)


async def _watch(state: State) -> None:
    """Return when the service is no longer ready; find an engine dead or hanging without a request."""
    seconds = state.settings.engine_hang_seconds
    with HangWatchdog(state.engine.ping, seconds=seconds) as watchdog:
        while state.readiness.phase is Phase.READY:
            if watchdog.hangs():
                log.error("engine hangs", extra={"fields": {"seconds": seconds}})
                state.metrics.engine_hang()
                await state.engine.kill()
            with contextlib.suppress(EngineDeadError), state.readiness.watch():
                await state.engine.check_health()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await state.readiness.left_ready.wait()


async def _restart(state: State, policy: RestartPolicy) -> None:
    """Be ready with a new engine, or fail for good."""
    quarantine = state.engine.quarantine
    counts = {"suspects": quarantine.suspects, "refused": quarantine.refused}
    log.error("engine died", extra={"fields": counts})
    await _close(state.engine.current)
    usual = state.readiness.retry_after
    while (delay := policy.next_delay()) is not None:
        state.readiness.retry_after = usual + math.ceil(delay)
        await asyncio.sleep(delay)
        begun = time.monotonic()
        try:
            engine = await _started(state)
        except Exception as error:
            # Not its text: this process has heard clients by now.
            log.error("restart failed", extra={"fields": {"exception": type(error).__name__}})
            state.metrics.engine_restart(succeeded=False)
            if isinstance(error, _FINAL):
                break
            continue
        state.engine.replace(engine)
        state.metrics.engine_restart(succeeded=True)
        _ready(state, seconds=time.monotonic() - begun)
        return
    log.critical("the engine is not restarted any more")
    state.readiness.fail()


async def _started(state: State) -> Engine:
    """A new engine that has answered. Raises CheckpointError when it would not be what this service says it serves."""
    assert state.rebuild is not None
    same = asyncio.create_task(state.checkpoint.require_unchanged())
    engine: Engine | None = None
    try:
        # Reads the checkpoint's config, and may look for an accelerator.
        engine = await asyncio.to_thread(state.rebuild)
        await engine.start()
        await same
        await warm_up(state, engine)
    except BaseException:
        same.cancel()
        await asyncio.gather(same, return_exceptions=True)
        if engine is not None:
            await _close(engine)
        raise
    return engine


async def _close(engine: Engine) -> None:
    try:
        await engine.close()
    except Exception as error:
        # A dead engine is no reason not to start another; what it left behind is for whoever reads this line.
        log.error("closing the engine failed", extra={"fields": {"exception": type(error).__name__}})


def _ready(state: State, *, seconds: float) -> None:
    state.readiness.retry_after = max(1, math.ceil(seconds))
    state.readiness.started()
    url, checkpoint = state.settings.url, state.checkpoint
    details = {
        "page": f"{url}/",
        "api": f"{url}/v1",
        "docs": f"{url}/docs",
        "model": checkpoint.config.name,
        "weights_sha256": checkpoint.weights_sha256,
        "adapter_sha256": checkpoint.adapter_sha256,
    }
    log.info("ready", extra={"fields": details})
