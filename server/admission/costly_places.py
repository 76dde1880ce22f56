"""Limit how many costly requests run at once, and let callers who were refused go first."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from medmoe.server.admission.deadline import Deadline
from medmoe.server.admission.slots import Admission
from medmoe.server.auth.tenants import ANONYMOUS
from medmoe.server.errors import Overloaded
from medmoe.server.observability.request_record import RequestRecord

_LATE = 5.0
"""Seconds by which a caller may be later than it was asked to be."""


class CostlyPlaces:
    """Places without a queue. A caller who has none and is refused has a claim until it should have asked again.

    A caller does not take a place that an earlier claim of another is on.
    """

    def __init__(self, places: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Pass a `clock` in seconds."""
        self._admission = Admission(max_concurrent=places, max_queued=0)
        self._clock = clock
        self._held: Counter[str] = Counter()
        self._claims: dict[str, float] = {}
        """When each caller's claim ends; the earliest claim comes first."""

    @property
    def in_flight(self) -> int:
        """Return the number of places that are taken."""
        return self._admission.in_flight

    def require(self, record: RequestRecord) -> None:
        """Raise Overloaded when there is no place for the caller of `record`."""
        caller = _caller(record)
        now = self._clock()
        self._claims = {name: end for name, end in self._claims.items() if end > now}
        try:
            self._admission.refuse_when_full()
            if self._admission.places - self.in_flight <= self._claims_before(caller):
                raise Overloaded(retry_after=1)
        except Overloaded as error:
            if not self._held[caller] and record.batch is None:
                self._claims[caller] = now + error.retry_after + _LATE
            raise

    @asynccontextmanager
    async def place(self, *, deadline: Deadline, record: RequestRecord) -> AsyncIterator[None]:
        """Hold one place; lines of batches need none. Raises Overloaded, DeadlineExceeded, Unauthenticated."""
        if record.batch is not None:
            yield
            return
        self.require(record)
        caller = _caller(record)
        async with self._admission.slot(deadline=deadline, record=record):
            self._claims.pop(caller, None)
            self._held[caller] += 1
            try:
                yield
            finally:
                self._held[caller] -= 1
                # Callers that are gone are forgotten.
                self._held += Counter()

    def _claims_before(self, caller: str) -> int:
        names = list(self._claims)
        return names.index(caller) if caller in self._claims else len(names)


def _caller(record: RequestRecord) -> str:
    return record.tenant.owner if record.tenant is not None else ANONYMOUS
