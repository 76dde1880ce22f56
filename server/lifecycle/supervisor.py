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
from medmoe.server.engine.restartable_engine import close_engine
from medmoe.server.errors import DeploymentError, EngineDeadError
from medmoe.server.lifecycle.run_queue import RunQueueWait
from medmoe.server.lifecycle.warm_up import warm_up
from medmoe.server.lifecycle.watchdog import HangWatchdog
from medmoe.server.models.served_model import ServedModel
from medmoe.server.state import State
from medmoe.server.tasks import run_all

log = logging.getLogger("medmoe.start")

_WATCH_SECONDS = 0.25
"""Time between two health checks; a death is noticed within a second even when the event loop is busy."""
FINAL = (CheckpointError, ConfigError, DeploymentError, PromptError)
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
    """Start the active model, then become ready and watch it. Failure is final."""
    begun = time.monotonic()
    model = state.active
    try:
        await start_model(model)
        if state.audit is not None:
            await state.audit.begin(identity(state))
    except Exception as error:
        # No task awaits this one, so every error must end here. Its text is safe to write: no client has been heard.
        log.critical("start failed", extra={"fields": {"exception": type(error).__name__, "reason": str(error)}})
        if isinstance(error, FINAL):
            known = isinstance(error, DeploymentError) or str(error).startswith("MEDMOE_")
            state.unusable = str(error) if known else f"MEDMOE_MODEL: {error}"
        model.readiness.fail()
        return
    begin_answering(state, model, seconds=time.monotonic() - begun)


async def start_model(model: ServedModel) -> None:
    """Start the engine, read the checkpoint, and ask one question.

    Raises EngineError, and what ServedCheckpoint.hash_weights and `warm_up` raise.
    """
    async with model.building:
        await run_all((model.engine.start(), model.decoders.start(), model.checkpoint.hash_weights()))
    model.router_stats.reference = model.checkpoint.routing_reference
    await warm_up(model, model.engine.current)
    model.router_stats.reset()


def begin_answering(state: State, model: ServedModel, *, seconds: float) -> None:
    """Let a model that took `seconds` to start answer, and watch its engine."""
    _ready(model, seconds=seconds)
    model.watching = asyncio.create_task(supervise(state, model))


async def supervise(state: State, model: ServedModel) -> None:
    """Watch the engine of a model that is ready; replace it when it dies, as often as the settings allow."""
    settings = model.settings
    policy = RestartPolicy(
        attempts=settings.engine_restarts,
        window_seconds=settings.engine_restart_window_seconds,
        first_delay=settings.engine_restart_delay_seconds,
    )
    while True:
        await _watch(model)
        if model.readiness.phase is not Phase.RESTARTING:
            return
        try:
            await _restart(state, model, policy)
        except Exception as error:
            log.critical("restart failed", extra={"fields": {"exception": type(error).__name__}})
            _give_up(model)


async def _watch(model: ServedModel) -> None:
    """Return when the model is no longer ready; find an engine dead or hanging without a request."""
    seconds = model.settings.engine_hang_seconds
    is_blind = False
    with HangWatchdog(model.engine.ping, seconds=seconds, starvation=RunQueueWait()) as watchdog:
        while model.readiness.phase is Phase.READY:
            try:
                if watchdog.hangs():
                    log.error("engine hangs", extra={"fields": {"seconds": seconds}})
                    model.engine_events.hangs += 1
                    try:
                        await model.engine.kill()
                    finally:
                        model.readiness.engine_died()
                with contextlib.suppress(EngineDeadError), model.readiness.watch():
                    await model.engine.check_health()
                is_blind = False
            except Exception as error:
                # Such as no file descriptor left to look with; nobody else would look again.
                if not is_blind:
                    log.error("the engine cannot be watched", extra={"fields": {"exception": type(error).__name__}})
                is_blind = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await model.readiness.left_ready.wait()


async def _give_way(other: ServedModel | None) -> None:
    """End another model whose engine is being built: the active model's restart needs the memory and the cores."""
    if other is not None and other.readiness.phase in (Phase.STARTING, Phase.RESTARTING):
        log.error("a model gives way to the restart of the active one", extra={"fields": {"model": other.name}})
        await other.close()
        other.failure = "the start was ended for the restart of the active model's engine; load the checkpoint again"
        other.readiness.fail()


async def _restart(state: State, model: ServedModel, policy: RestartPolicy) -> None:
    """Become ready with a new engine, or fail for good."""
    quarantine = model.engine.quarantine
    counts = {"suspects": quarantine.suspects, "refused": quarantine.refused}
    log.error("engine died", extra={"fields": counts | {"model": model.pinned_name}})
    await close_engine(model.engine.current)
    usual = model.readiness.retry_after
    while (delay := policy.next_delay()) is not None:
        model.readiness.retry_after = usual + math.ceil(delay)
        await asyncio.sleep(delay)
        if model is state.active:
            await _give_way(state.models.other)
        begun = time.monotonic()
        try:
            engine = await _started(model)
        except Exception as error:
            # Not its text: this process has heard clients by now.
            log.error("restart failed", extra={"fields": {"exception": type(error).__name__}})
            model.engine_events.failed += 1
            if isinstance(error, FINAL):
                break
            continue
        model.engine.replace(engine)
        model.engine_events.restarted += 1
        _ready(model, seconds=time.monotonic() - begun)
        return
    log.critical("the engine is not restarted any more")
    _give_up(model)


def _give_up(model: ServedModel) -> None:
    model.failure = "the engine died, and could not be restarted"
    model.readiness.fail()


async def _started(model: ServedModel) -> Engine:
    """Return a new engine that has answered. Raises CheckpointError when the checkpoint has changed since the start."""
    assert model.build is not None
    # Reads the checkpoint's config, and may look for an accelerator.
    engine = await asyncio.to_thread(model.build, model.settings)
    try:
        async with model.building:
            await engine.start()
        # Not before: files that are replaced while the engine starts would be served under the old hashes.
        await model.checkpoint.require_unchanged()
        await warm_up(model, engine)
    except BaseException:
        await close_engine(engine)
        raise
    return engine


def identity(state: State) -> dict[str, str | None]:
    """Return what the first record of the audit trail says of this process."""
    settings = state.settings.model_dump_json().encode()
    return {
        "service": f"medmoe {version('medmoe')}",
        "model": state.active.checkpoint.config.name,
        "config_sha256": state.active.checkpoint.config_sha256,
        "weights_sha256": state.active.checkpoint.weights_sha256,
        "adapter_sha256": state.active.checkpoint.adapter_sha256,
        "settings_sha256": hashlib.sha256(settings).hexdigest(),
    }


def _ready(model: ServedModel, *, seconds: float) -> None:
    model.readiness.retry_after = max(1, math.ceil(seconds))
    model.readiness.started()
    url, checkpoint = model.settings.url, model.checkpoint
    details = {
        "page": f"{url}/",
        "api": f"{url}/v1",
        "docs": f"{url}/docs",
        "model": model.name,
        "weights_sha256": checkpoint.weights_sha256,
        "adapter_sha256": checkpoint.adapter_sha256,
    }
    log.info("ready", extra={"fields": details})
