"""What is known about one HTTP request: its id, its clock, its outcome.

One record feeds the histograms, the log line and the answer's `timings`, so that the three can never disagree.
It holds no content: nothing in it was written by a client except a request id of safe characters.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from starlette.types import Scope

from medmoe.server.schemas import Timings
from medmoe.server.tenants import Tenant

Stage = Literal["image", "queue", "engine"]
_SCOPE_KEY = "medmoe.record"


@dataclass(kw_only=True, slots=True)
class RequestRecord:
    """Mutable, owned by one request; seconds throughout."""

    request_id: str
    method: str
    route: str = "unmatched"
    """The route's template, never the raw path."""
    tenant: Tenant | None = None
    """Known once the API key was seen to be one."""
    status: int | None = None
    error_code: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    """What this request calls a field, where that is not what errors call it."""
    stages: dict[Stage, float] = field(default_factory=dict)
    duration: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def attach(self, scope: Scope) -> None:
        scope[_SCOPE_KEY] = self

    @staticmethod
    def of(scope: Scope) -> "RequestRecord":
        record: RequestRecord = scope[_SCOPE_KEY]
        return record

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Add the time spent inside to stage `name`, also when it fails."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - begun

    @property
    def cache_salt(self) -> str | None:
        """The tenant's."""
        return self.tenant.cache_salt if self.tenant else None

    def elapsed(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self.started

    def server_timing(self) -> str:
        """The stages that are over, and the time so far, as the Server-Timing header (W3C) has them: milliseconds."""
        spans: list[tuple[str, float]] = [*self.stages.items(), ("total", self.elapsed())]
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in spans)

    def timings(self) -> Timings:
        """Up to now, as part of an answer; a stage that was never entered took no time."""
        image, queue, engine = (self.stages.get(stage, 0.0) for stage in ("image", "queue", "engine"))
        return Timings(image=image, queue=queue, engine=engine, total=self.elapsed())
