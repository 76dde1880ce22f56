"""End a request at its deadline; raise the error behind 504."""

import asyncio
from collections.abc import Callable
from types import TracebackType

from medmoe.server.errors import DeadlineExceeded, ServerError


class Deadline:
    """The time at which a request is ended; it can be brought forward."""

    def __init__(self, seconds: float) -> None:
        self._when = asyncio.get_running_loop().time() + seconds
        self._guards: dict[asyncio.Timeout, float] = {}
        self._cut_short: Callable[[], ServerError] | None = None

    def guard(self, *, grace: float = 0.0) -> "_Guard":
        """Return a context manager that cancels its block at the deadline plus `grace` seconds.

        It raises DeadlineExceeded, or the error of `cut_short`.
        """
        timeout = asyncio.timeout_at(self._when + grace)
        return _Guard(timeout, grace=grace, guards=self._guards, error=self._error)

    def cut_short(self, error: Callable[[], ServerError]) -> None:
        """Bring the deadline forward to now; its guards raise what `error` returns."""
        now = asyncio.get_running_loop().time()
        if self._cut_short is not None or self._when <= now:
            return
        self._when, self._cut_short = now, error
        for timeout, grace in self._guards.items():
            if not timeout.expired():
                timeout.reschedule(now + grace)

    def _error(self) -> ServerError:
        return self._cut_short() if self._cut_short else DeadlineExceeded()


class _Guard:
    """Guard one block."""

    # Not a generator: each token of an answer is awaited in such a block.
    __slots__ = ("_error", "_grace", "_guards", "_timeout")

    def __init__(
        self,
        timeout: asyncio.Timeout,
        *,
        grace: float,
        guards: dict[asyncio.Timeout, float],
        error: Callable[[], ServerError],
    ) -> None:
        self._timeout = timeout
        self._grace = grace
        self._guards = guards
        self._error = error

    async def __aenter__(self) -> None:
        self._guards[self._timeout] = self._grace
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._guards[self._timeout]
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as ended:
            error = ended
        if isinstance(error, TimeoutError) and self._timeout.expired():
            raise self._error() from error
