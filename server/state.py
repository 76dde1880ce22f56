"""Hold the parts of one app; create_app builds them, the routes read them."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from starlette.requests import Request

from medmoe.server.admission.background_turns import BackgroundTurns
from medmoe.server.admission.costly_places import CostlyPlaces
from medmoe.server.admission.deadline import Deadline
from medmoe.server.admission.readiness import Phase, Readiness
from medmoe.server.admission.slots import Admission
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
from medmoe.server.imaging.fetch.fetcher import ImageFetcher
from medmoe.server.models.model_registry import ModelRegistry
from medmoe.server.models.served_model import BuildEngine, ServedModel, SharedParts
from medmoe.server.observability.metrics import Metrics
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.observability.trace_export import TraceExport
from medmoe.server.settings import Settings


class State:
    """The parts of one app, one of each."""

    starting: asyncio.Task[None] | None = None
    """Starts the service in the background; done when the service is ready or has failed."""
    unusable: str | None = None
    """Why no start can succeed before a person has changed something; None while one may."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        on_failure: Callable[[], None],
        build: BuildEngine | None = None,
    ) -> None:
        """Raise ConfigError or CheckpointError when a file that the settings name cannot be read."""
        self.settings = settings
        self.created = int(time.time())
        self.build = build
        turns = BackgroundTurns(settings.batch_concurrency)
        self.admission = Admission(
            max_concurrent=settings.max_concurrent, max_queued=settings.max_queued, background=turns
        )
        self.authenticator = _authenticator(settings)
        self.metrics = Metrics(
            ready=lambda: self.readiness.phase is Phase.READY and not self.readiness.leaving,
            in_flight=lambda: self.admission.in_flight,
            places=self.admission.places,
            models=lambda: {name: one.router_stats for name, one in self.models.pinned().items() if one.is_ready},
            engines=lambda: {name: one.engine_events for name, one in self.models.pinned().items() if one.has_started},
            quarantines=lambda: [model.engine.quarantine for model in self.models],
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
        keys_of_trail = (
            AuditKeys.from_file(settings.audit_key, named_by="MEDMOE_AUDIT_KEY") if settings.audit_key else None
        )
        if settings.audit_dir is not None and keys_of_trail is not None:
            self.audit = AuditTrail.of(settings, keys_of_trail, count_failures=self.metrics.audit_failures)
            self.auditor = RequestAuditor(self.audit, keys_of_trail)
        self.dicomweb = DICOMwebClient.of(settings)
        self._shared = SharedParts(
            admission=self.admission,
            series_places=CostlyPlaces(settings.max_series),
            explain_places=CostlyPlaces(settings.max_explains),
            metrics=self.metrics,
            fetcher=ImageFetcher.of(settings),
            dicomweb=self.dicomweb,
            digests=keys_of_trail if self.audit is not None else None,
            building=asyncio.Lock(),
        )
        self._on_failure = on_failure
        self.models = ModelRegistry(self.serve(settings, engine))

    @property
    def active(self) -> ServedModel:
        """Return the model that answers requests that name none."""
        return self.models.active

    @property
    def readiness(self) -> Readiness:
        """Return the readiness of the service, which is that of its active model."""
        return self.active.readiness

    def serve(self, settings: Settings, engine: Engine) -> ServedModel:
        """Return a model with `engine` for the checkpoint `settings.model`. Raises ConfigError, CheckpointError."""
        return ServedModel(settings, engine, shared=self._shared, build=self.build, on_failure=self._failed)

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
        self.require_audit()

    def require_audit(self) -> None:
        """Raise AuditUnavailable while nothing may happen without a record, and none can be written."""
        if self.audit is not None:
            self.audit.require()

    def receiving(self) -> AbstractAsyncContextManager[None]:
        """Return a guard for the reading of a request's body, which raises DeadlineExceeded.

        Raises what `require_room` raises.
        """
        # Before the body is read: a full service must not also fill its memory.
        self.require_room()
        return self.deadline(None).guard()

    def publish(self, record: RequestRecord) -> None:
        """Count a finished request in the metrics, audit it and export its trace."""
        self.models.finished(record)
        self.metrics.requests.record(record)
        if self.auditor is not None:
            self.auditor.finished(record)
        if self.traces is not None:
            self.traces.export(record)

    def _failed(self, model: ServedModel) -> None:
        # The other model's failure is no reason to end the process.
        if model is self.active:
            self._on_failure()


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
