"""Hold a served checkpoint with its engine, decoders, caches, statistics and readiness."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medmoe.model.image_processor import ImageProcessor
from medmoe.server.admission.costly_places import CostlyPlaces
from medmoe.server.admission.fair_slots import FairSlots
from medmoe.server.admission.readiness import Phase, Readiness
from medmoe.server.admission.slots import Admission
from medmoe.server.audit.keys import AuditKeys
from medmoe.server.dicomweb.client import DICOMwebClient
from medmoe.server.engine.base import Engine
from medmoe.server.engine.restartable_engine import RestartableEngine
from medmoe.server.imaging.cache import ImageCache
from medmoe.server.imaging.fetch.fetcher import ImageFetcher
from medmoe.server.imaging.intake import ImageIntake
from medmoe.server.imaging.sandbox.pool import DecoderPool
from medmoe.server.imaging.series_intake import SeriesIntake
from medmoe.server.inference.content_free_scores import ContentFreeScores
from medmoe.server.inference.context import InferenceContext
from medmoe.server.inference.explain.context import ExplainContext
from medmoe.server.inference.series.context import SeriesContext
from medmoe.server.observability.metrics import Metrics
from medmoe.server.observability.model_metrics import EngineEvents
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.router_stats.stats import RouterStats
from medmoe.server.served_checkpoint import ServedCheckpoint
from medmoe.server.settings import Settings
from medmoe.server.tasks import happens_within

BuildEngine = Callable[[Settings], Engine]
"""Builds an engine for the checkpoint `settings.model`; it is started later."""

_COVERED_AT_ONCE = 4
"""Covered images in the engine at once, of all maps; another request waits for so many at most."""
_STEPS_WAITING = 4
"""Engine requests of classifications in the engine at once, for each sequence of an engine step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedParts:
    """The parts of a service that all its models use."""

    admission: Admission
    series_places: CostlyPlaces
    explain_places: CostlyPlaces
    metrics: Metrics
    fetcher: ImageFetcher | None
    dicomweb: DICOMwebClient
    digests: AuditKeys | None
    building: asyncio.Lock
    """Held while an engine is built: builds share the environment of the process."""


class ServedModel:
    """One checkpoint of the service and the engine that runs it."""

    watching: asyncio.Task[None] | None = None
    """Checks the health of the engine once it is ready, and replaces it when it dies."""
    failure: str | None = None
    """Why the model cannot answer any more."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        shared: SharedParts,
        build: BuildEngine | None,
        on_failure: Callable[["ServedModel"], None],
    ) -> None:
        """Serve the checkpoint `settings.model` with `engine`; `build` makes the engine that replaces a dead one.

        Raises ConfigError or CheckpointError when the checkpoint directory cannot be read.
        """
        self.settings = settings
        self.building = shared.building
        self.checkpoint = ServedCheckpoint(settings.model)
        self.engine = RestartableEngine(engine)
        self.build = build if settings.on_engine_death == "restart" else None
        """None where the death of the engine is final."""
        self.readiness = Readiness(on_failure=lambda: on_failure(self), restarts=self.build is not None)
        self.router_stats = RouterStats(self.checkpoint.config)
        self.decoders = DecoderPool.of(settings, self.checkpoint.config)
        self.images = ImageIntake(
            self.decoders,
            cache=ImageCache(self.decoders, most=settings.image_cache_entries, count=shared.metrics.requests.image),
            fetcher=shared.fetcher,
            dicomweb=shared.dicomweb,
            digests=shared.digests,
        )
        self.inference = InferenceContext(
            settings=settings,
            checkpoint=self.checkpoint,
            engine=self.engine,
            images=self.images,
            admission=shared.admission,
            readiness=self.readiness,
            router_stats=self.router_stats,
            # Enough to fill engine steps; each holds a copy of its image until it ends.
            label_steps=FairSlots(_STEPS_WAITING * settings.max_num_seqs),
            content_free=ContentFreeScores(size=self.checkpoint.config.vision_config.image_size),
        )
        self.series = SeriesContext(
            inference=self.inference,
            intake=SeriesIntake(self.images, settings),
            places=shared.series_places,
        )
        self.explain = ExplainContext(
            inference=self.inference,
            processor=ImageProcessor.from_config(self.checkpoint.config),
            places=shared.explain_places,
            cells=FairSlots(_COVERED_AT_ONCE),
        )
        self.engine_events = EngineEvents()
        self._requests: dict[int, RequestRecord] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def directory(self) -> Path:
        """Return the checkpoint's directory."""
        return self.checkpoint.directory

    @property
    def name(self) -> str:
        """Return the name that the checkpoint's config states."""
        return self.checkpoint.config.name

    @property
    def pinned_name(self) -> str:
        """Return the name and, after an @, the beginning of the hash of the weights: no other weights answer to it."""
        return f"{self.name}@{self.checkpoint.version}"

    @property
    def has_started(self) -> bool:
        """Return whether the start is over, and `pinned_name` is final."""
        return self.readiness.phase is not Phase.STARTING

    @property
    def is_ready(self) -> bool:
        """Return whether requests to this model are answered."""
        return self.readiness.phase is Phase.READY

    @property
    def is_offered(self) -> bool:
        """Return whether requests may name this model: it is ready, or its engine is being replaced."""
        return self.readiness.phase in (Phase.READY, Phase.RESTARTING)

    @property
    def requests(self) -> int:
        """Return the number of requests that have begun and not ended."""
        return len(self._requests)

    def begin(self, record: RequestRecord) -> None:
        """Count a request that this model answers, until `finished`, and note the weights on its record."""
        record.weights_sha256 = self.checkpoint.weights_sha256
        self._requests[id(record)] = record
        self._idle.clear()

    def finished(self, record: RequestRecord) -> None:
        """Stop counting a request that has ended; one of another model changes nothing."""
        self._requests.pop(id(record), None)
        if not self._requests:
            self._idle.set()

    async def wait_idle(self, seconds: float) -> bool:
        """Wait at most `seconds` until every request has ended; return whether that happened."""
        return await happens_within(self._idle, seconds)

    async def close(self) -> None:
        """End the model's task, processes and engine. Safe to call twice."""
        if self.watching is not None:
            # During a restart the task closes the engine that it is building.
            self.watching.cancel()
            await asyncio.gather(self.watching, return_exceptions=True)
        await self.engine.close()
        self.decoders.close()
