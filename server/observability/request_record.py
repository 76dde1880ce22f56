"""Record one HTTP request: its id, its stages and its outcome.

One record feeds the histograms, the log line, the trace and the answer's `timings`, so that they can never disagree.
It holds no content: nothing in it was written by a client except a request id of safe characters and a trace's ids.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from starlette.types import Scope

from medmoe.server.auth.tenants import Grant, Tenant
from medmoe.server.observability.trace_context import TraceContext
from medmoe.server.schemas.inference import Timings, UnlikeTraining

Stage = Literal["fetch", "image", "queue", "engine"]
_SCOPE_KEY = "medmoe.record"
_LINE_KEY = "medmoe.batch_line"
_PROBES = ("/health/", "/metrics")
CLIENT_GONE = 499
"""Status of a request whose client left before an answer began; nginx's number, never sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLine:
    """Mark a request that the service sends to itself for a batch; no client can set it."""

    batch: str
    grant: Grant

    def attach(self, scope: Scope) -> None:
        scope[_LINE_KEY] = self

    @staticmethod
    def of(scope: Scope) -> "BatchLine | None":
        line: BatchLine | None = scope.get(_LINE_KEY)
        return line


@dataclass(kw_only=True, slots=True)
class RequestRecord:
    """Mutable, owned by one request; seconds throughout."""

    request_id: str
    method: str
    route: str = "unmatched"
    """The route's template, never the raw path."""
    grant: Grant | None = None
    """Known once the API key or the token was seen to be valid."""
    status: int | None = None
    error_code: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    """What this request calls a field, where that is not what errors call it."""
    stages: dict[Stage, float] = field(default_factory=dict)
    spans: list[tuple[Stage, float, float]] = field(default_factory=list)
    """Each stay in a stage: its begin and its end, by the clock of `started`."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Tokens of the answer by kind: prompt, completion and cached; empty without an answer."""
    unlike_training: bool | None = None
    """Whether the image was flagged as unlike the training images; None where no image was scored."""
    calibrated: bool | None = None
    """Whether a calibration was applied to the answer; None without an answer."""
    abstained: bool | None = None
    weights_sha256: str | None = None
    """Digest of the weights of the model that answers; None before it is chosen, and without weights."""
    images: list[dict[str, str]] = field(default_factory=list)
    """Keyed digests of the images and of their DICOM UIDs, for the audit trail; empty without one."""
    audited: str | None = None
    """Id of a stream whose record was written, empty for another request with a record, None without."""
    batch: str | None = None
    """Id of the batch whose line this is; None for a request that came over the network."""
    trace: TraceContext | None = None
    duration: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    started_ns: int = field(default_factory=time.time_ns)
    """The same moment since 1970."""

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
            ended = time.perf_counter()
            self.spans.append((name, begun, ended))
            self.stages[name] = self.stages.get(name, 0.0) + ended - begun

    def count_tokens(self, *, prompt: int, completion: int, cached: int) -> None:
        """Count the tokens that the engine read, wrote, and had in its cache."""
        self.tokens = {"prompt": prompt, "completion": completion, "cached": cached}

    def note_unlike_training(self, found: UnlikeTraining | None) -> None:
        """Note whether the image was flagged as unlike the training images."""
        self.unlike_training = None if found is None else found.flagged

    def note_answer(self, *, calibrated: bool, abstained: bool) -> None:
        """Note how far the answer is to be trusted, as the response says it."""
        self.calibrated, self.abstained = calibrated, abstained

    def part(self) -> "RequestRecord":
        """Return a record for a part of the request, with a clock of its own."""
        return RequestRecord(request_id=self.request_id, method=self.method, route=self.route, grant=self.grant)

    def add(self, part: "RequestRecord") -> None:
        """Add the stages, tokens and images of a part, which may have run beside others.

        How far its answer is to be trusted stays the part's own.
        """
        self.spans += part.spans
        for stage, seconds in part.stages.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds
        for kind, count in part.tokens.items():
            self.tokens[kind] = self.tokens.get(kind, 0) + count
        if part.unlike_training is not None:
            self.unlike_training = self.unlike_training or part.unlike_training
        self.images += part.images

    @property
    def is_quiet_probe(self) -> bool:
        """Return whether this is a successful probe or scrape: they come every few seconds and are not logged."""
        return self.route.startswith(_PROBES) and self.status == HTTPStatus.OK

    def wall_ns(self, moment: float) -> int:
        """Return nanoseconds since 1970 at `moment`, by the clock of `started`."""
        return self.started_ns + round((moment - self.started) * 1e9)

    @property
    def tenant(self) -> Tenant | None:
        """Return the tenant, once it is known."""
        return self.grant.tenant if self.grant else None

    @property
    def cache_salt(self) -> str | None:
        """Return the cache salt of the tenant."""
        return self.tenant.cache_salt if self.tenant else None

    def elapsed(self) -> float:
        """Return the seconds since the request arrived."""
        return time.perf_counter() - self.started

    def server_timing(self) -> str:
        """Return the finished stages and the time so far as a Server-Timing header (W3C), in milliseconds."""
        spans: list[tuple[str, float]] = [*self.stages.items(), ("total", self.elapsed())]
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in spans)

    def timings(self) -> Timings:
        """Return the seconds of each stage so far, as part of an answer; a stage that was not entered took none."""
        fetch, image, queue, engine = (self.stages.get(stage, 0.0) for stage in ("fetch", "image", "queue", "engine"))
        return Timings(fetch=fetch, image=image, queue=queue, engine=engine, total=self.elapsed())
