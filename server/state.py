"""Hold the parts of one app; create_app builds them, the routes read them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request

from medmoe.model.image_processor import ImageProcessor
from medmoe.server.admission.background_turns import BackgroundTurns
from medmoe.server.admission.fair_slots import FairSlots
from medmoe.server.admission.readiness import Phase, Readiness
from medmoe.server.admission.slots import Admission, Deadline
from medmoe.server.audit.keys import AuditKeys
from medmoe.server.audit.request_auditor import RequestAuditor
from medmoe.server.audit.trail import AuditTrail
from medmoe.server.auth.api_keys import WatchedKeys
from medmoe.server.auth.authenticator import Authenticator
from medmoe.server.auth.oidc.provider import Provider
from medmoe.server.auth.oidc.subjects import Subjects
from medmoe.server.auth.oidc.token_verifier import TokenVerifier
from medmoe.server.batches.service import BatchService
from medmoe.server.dicomweb.client import DICOMwebClient
from medmoe.server.engine.base import Engine
from medmoe.server.engine.restartable_engine import RestartableEngine
from medmoe.server.imaging.cache import ImageCache
from medmoe.server.imaging.fetch.fetcher import ImageFetcher
from medmoe.server.imaging.intake import ImageIntake
from medmoe.server.imaging.sandbox.pool import DecoderPool
from medmoe.server.imaging.series_intake import SeriesIntake
from medmoe.server.inference.context import InferenceContext
from medmoe.server.inference.explain.context import ExplainContext
from medmoe.server.inference.series.context import SeriesContext
from medmoe.server.observability.metrics import Metrics
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.observability.trace_export import TraceExport
from medmoe.server.router_stats.stats import RouterStats
from medmoe.server.served_checkpoint import ServedCheckpoint
from medmoe.server.settings import Settings

_COVERED_AT_ONCE = 4
"""Covered images in the engine at once, of all maps; another request waits for so many at most."""
_STEPS_WAITING = 4
"""Engine requests of classifications in the engine at once, for each sequence of an engine step."""


class State:
    """The parts of one app, one of each."""

    starting: asyncio.Task[None] | None = None
    """Starts the service in the background; done when the service is ready or has failed."""
    unusable: str | None = None
    """Why no start can succeed before a person has changed something; None while one may."""
    watching: asyncio.Task[None] | None = None
    """Checks the health of the engine once it is ready, and replaces it when it dies."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        on_failure: Callable[[], None],
        rebuild: Callable[[], Engine] | None = None,
    ) -> None:
        """Raise ConfigError, CheckpointError or AuditError when a file that the settings name cannot be read."""
        self.settings = settings
        self.created = int(time.time())
        self.checkpoint = ServedCheckpoint(settings.model)
        self.engine = RestartableEngine(engine)
        self.rebuild = rebuild if settings.on_engine_death == "restart" else None
        """Builds the engine that replaces a dead one; None where its death is final."""
        turns = BackgroundTurns(settings.batch_concurrency)
        self.admission = Admission(
            max_concurrent=settings.max_concurrent, max_queued=settings.max_queued, background=turns
        )
        self.readiness = Readiness(on_failure=on_failure, restarts=self.rebuild is not None)
        self.authenticator = _authenticator(settings)
        self.router_stats = RouterStats(self.checkpoint.config)
        self.metrics = Metrics(
            ready=lambda: self.readiness.phase is Phase.READY and not self.readiness.leaving,
            in_flight=lambda: self.admission.in_flight,
            places=self.admission.places,
            expert_tokens=self.router_stats.tokens,
            expert_tokens_by_modality=self.router_stats.tokens_by_modality,
            drift=self.router_stats.recent_drift,
            quarantine=self.engine.quarantine,
            keys=self.authenticator.keys,
            provider=self.authenticator.provider,
        )
        self.batches = batches = BatchService.of(
            settings,
            authenticator=self.authenticator,
            turns=turns,
            is_ready=lambda: self.readiness.phase is Phase.READY,
        )
        if batches is not None:
            self.metrics.watch_batches(count=batches.count, paused=lambda: batches.is_paused)
        self.traces = TraceExport(str(settings.otlp_endpoint)) if settings.otlp_endpoint else None
        self.audit: AuditTrail | None = None
        self.auditor: RequestAuditor | None = None
        keys_of_trail = AuditKeys.from_file(settings.audit_key) if settings.audit_key else None
        if settings.audit_dir is not None and keys_of_trail is not None:
            self.audit = AuditTrail.of(settings, keys_of_trail, count_failures=self.metrics.audit_failures)
            self.auditor = RequestAuditor(self.audit, keys_of_trail)
        self.decoders = DecoderPool.of(settings, self.checkpoint.config)
        self.dicomweb = DICOMwebClient.of(settings)
        self.images = ImageIntake(
            self.decoders,
            cache=ImageCache(self.decoders, most=settings.image_cache_entries, count=self.metrics.image),
            fetcher=ImageFetcher.of(settings),
            dicomweb=self.dicomweb,
            digests=keys_of_trail if self.audit is not None else None,
        )
        self.inference = InferenceContext(
            settings=settings,
            checkpoint=self.checkpoint,
            engine=self.engine,
            images=self.images,
            admission=self.admission,
            readiness=self.readiness,
            router_stats=self.router_stats,
            # Enough to fill engine steps; each holds a copy of its image until it ends.
            label_steps=FairSlots(_STEPS_WAITING * settings.max_num_seqs),
        )
        self.series = SeriesContext(
            inference=self.inference,
            intake=SeriesIntake(self.images, settings),
            places=Admission(max_concurrent=settings.max_series, max_queued=0),
        )
        self.explain = ExplainContext(
            inference=self.inference,
            processor=ImageProcessor.from_config(self.checkpoint.config),
            places=Admission(max_concurrent=settings.max_explains, max_queued=0),
            cells=FairSlots(_COVERED_AT_ONCE),
        )

    @staticmethod
    def of(request: Request) -> "State":
        """Return the state of the app that `request` came to."""
        state: State = request.app.state.medmoe
        return state

    def deadline(self, timeout_ms: int | None) -> Deadline:
        """Return the deadline of a request with its own `timeout_ms`, never later than the deployment's."""
        return Deadline(min(timeout_ms or self.settings.timeout_ms, self.settings.timeout_ms) / 1000)

    def require_room(self) -> None:
        """Raise Overloaded when every place is taken, AuditUnavailable, and what Readiness.require raises."""
        self.readiness.require()
        self.admission.refuse_when_full()
        if self.audit is not None:
            self.audit.require()

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """Guard the reading of a request's body. Raises what `require_room` raises, DeadlineExceeded."""
        # Before the body is read: a full service must not also fill its memory.
        self.require_room()
        async with self.deadline(None).guard():
            yield

    def publish(self, record: RequestRecord) -> None:
        """Count a finished request in the metrics, audit it and export its trace."""
        self.metrics.record(record)
        if self.auditor is not None:
            self.auditor.finished(record)
        if self.traces is not None:
            self.traces.export(record)


def _authenticator(settings: Settings) -> Authenticator:
    limit = settings.requests_per_minute
    keys = WatchedKeys.read(settings.api_keys, requests_per_minute=limit) if settings.api_keys else None
    return Authenticator(keys, subjects=_subjects(settings), requests_per_minute=limit)


def _subjects(settings: Settings) -> Subjects | None:
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    return Subjects(
        Provider(settings.oidc_issuer, jwks_url=settings.oidc_jwks_url, ca_file=settings.oidc_ca_file),
        TokenVerifier(
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            scopes_claim=settings.oidc_scopes_claim,
            scope_prefix=settings.oidc_scope_prefix,
        ),
        requests_per_minute=settings.requests_per_minute,
    )
