"""Detect an engine that hangs: its processes live and answer no ping."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

_PAUSE_SECONDS = 1.0
"""Time between an answered ping and the next one."""
_LONGEST_STEP = 1.0
"""Most seconds that count between two looks: a service that was itself suspended has not waited."""
_PATIENT = 1.0
"""Seconds after which an unanswered ping is worth asking whether the engine gets a processor."""


class Starvation(Protocol):
    """Tells how long the engine has waited for a processor."""

    def reset(self) -> None: ...

    def seconds(self) -> float:
        """Return the seconds since the last call."""


class HangWatchdog:
    """Send one ping at a time and measure how long the present one has been unanswered."""

    def __init__(
        self,
        ping: Callable[[], Coroutine[Any, Any, None]],
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        starvation: Starvation | None,
    ) -> None:
        """Allow `seconds` for the answer to one `ping`; an exception is an answer too.

        The time that the engine waits for a processor, by `starvation`, does not count: a busy machine is no hang.
        """
        self._ping = ping
        self._seconds = seconds
        self._clock = clock
        self._starvation = starvation
        self._looked = self._next = clock()
        self._waited = 0.0
        self._sent: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sent is not None:
            self._sent.cancel()

    def hangs(self) -> bool:
        """Return whether a ping has been unanswered for too long. Call it several times a second on the event loop."""
        now = self._clock()
        step, self._looked = min(now - self._looked, _LONGEST_STEP), now
        if self._sent is not None and not self._sent.done():
            if self._starvation is not None and self._waited >= _PATIENT:
                step = max(step - self._starvation.seconds(), 0.0)
            self._waited += step
        elif self._sent is not None:
            # Retrieved, so that asyncio does not log it; the health check says whether the engine is dead.
            if not self._sent.cancelled():
                self._sent.exception()
            self._sent, self._next = None, now + _PAUSE_SECONDS
        elif now >= self._next:
            self._waited = 0.0
            if self._starvation is not None:
                self._starvation.reset()
            self._sent = asyncio.create_task(self._ping())
        return self._sent is not None and self._waited >= self._seconds
