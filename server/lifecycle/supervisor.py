"""Start the service, watch its engine and replace one that has died: the meaning of /health/ready."""

import asyncio
import contextlib
import hashlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from importlib.metadata import version

from medmoe.model.errors import CheckpointError, ConfigError, PromptError
from medmoe.server.admission.readiness import Phase
from medmoe.server.engine.base import Engine
from medmoe.server.errors import DeploymentError, EngineDeadError
from medmoe.server.lifecycle.warm_up import warm_up
from medmoe.server.lifecycle.watchdog import HangWatchdog
from medmoe.server.state import State

log = logging.getLogger("medmoe.start")

_WATCH_SECONDS = 0.25
"""Time between two health checks; a death is noticed within a second even when the event loop is busy."""
_FINAL = (CheckpointError, ConfigError, DeploymentError, PromptError)
"""Errors that another attempt to start would meet again."""
_LONGEST_DELAY = 60.0
"""Most seconds before an attempt to restart the engine."""


class RestartPolicy:
    """Delay each restart twice as long as the one before it, the first not at all; allow only so many in a window."""

    def __init__(
        self,
        *,
        attempts: int,
        window_seconds: float,
        first_delay: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Allow `attempts` restarts in any `window_seconds`; `first_delay` seconds come before the second of them."""
        self._attempts = attempts
        self._window = window_seconds
        self._first_delay = first_delay
        self._clock = clock
        self._made: deque[float] = deque()

    def next_delay(self) -> float | None:
        """Count one attempt and return the seconds to wait before it; None when there have been too many."""
        now = self._clock()
        while self._made and now - self._made[0] > self._window:
            self._made.popleft()
        made = len(self._made)
        if made >= self._attempts:
            return None
        self._made.append(now)
        return min(_LONGEST_DELAY, self._first_delay * 2.0 ** (made - 1)) if made else 0.0


async def start_up(state: State) -> None:
    """Start the engine, ask it one question, then become ready. Failure is final."""
    begun = time.monotonic()
    try:
        await asyncio.gather(state.engine.start(), state.decoders.start(), state.checkpoint.hash_weights())
        if state.audit is not None:
            await state.audit.begin(identity(state))
        state.router_stats.reference = state.checkpoint.routing_reference
        await warm_up(state, state.engine.current)
    except Exception as error:
        # No task awaits this one, so every error must end here. Its text is safe to write: no client has been heard.
        log.critical("start failed", extra={"fields": {"exception": type(error).__name__, "reason": str(error)}})
        if isinstance(error, _FINAL):
            known = isinstance(error, DeploymentError) or str(error).startswith("MEDMOE_")
            state.unusable = str(error) if known else f"MEDMOE_MODEL: {error}"
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
    """Become ready with a new engine, or fail for good."""
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
    """Return a new engine that has answered. Raises CheckpointError when the checkpoint has changed since the start."""
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
        # The next engine is started all the same.
        log.error("closing the engine failed", extra={"fields": {"exception": type(error).__name__}})


def identity(state: State) -> dict[str, str | None]:
    """Return what the first record of the audit trail says of this process."""
    settings = state.settings.model_dump_json().encode()
    return {
        "service": f"medmoe {version('medmoe')}",
        "model": state.checkpoint.config.name,
        "config_sha256": state.checkpoint.config_sha256,
        "weights_sha256": state.checkpoint.weights_sha256,
        "adapter_sha256": state.checkpoint.adapter_sha256,
        "settings_sha256": hashlib.sha256(settings).hexdigest(),
    }


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
