"""Everything one app owns, typed, in one place; built by create_app, read by the routes.

Apart from app.py so that routes can name what they use without importing the wiring.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.requests import Request

from medmoe.model.config import ADAPTER_WEIGHTS_FILE, CONFIG_FILE, WEIGHTS_FILE, MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.files.calibration import Calibration
from medmoe.model.files.digest import file_sha256
from medmoe.model.files.routing_reference import RoutingReference
from medmoe.model.prompt import Prompt
from medmoe.server.admission.readiness import Phase, Readiness
from medmoe.server.admission.slots import Admission, Deadline
from medmoe.server.auth.tenants import Tenants, read_key_file
from medmoe.server.engine.base import Engine
from medmoe.server.engine.label_scorer import LabelScorer
from medmoe.server.engine.restartable_engine import RestartableEngine
from medmoe.server.errors import ImageURLNotAllowed
from medmoe.server.imaging.cache import ImageCache
from medmoe.server.imaging.fetch.fetcher import ImageFetcher
from medmoe.server.imaging.image import DecodedImage
from medmoe.server.imaging.sandbox.pool import DecoderPool
from medmoe.server.observability.metrics import Metrics
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.observability.trace_export import TraceExport
from medmoe.server.router_stats.stats import RouterStats
from medmoe.server.schemas.image_url import is_url
from medmoe.server.schemas.images import ImageFields, View
from medmoe.server.schemas.vqa import Provenance
from medmoe.server.settings import Settings


class State:
    """One per app."""

    watching: asyncio.Task[None] | None = None
    """Asks the engine for its health once it is ready, and replaces it when it dies."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        on_failure: Callable[[], None],
        rebuild: Callable[[], Engine] | None = None,
    ) -> None:
        """Raises ConfigError or CheckpointError when the checkpoint directory cannot be read."""
        self.settings = settings
        self.engine = RestartableEngine(engine)
        self.rebuild = rebuild if settings.on_engine_death == "restart" else None
        """Makes another engine when one has died; None where its death is final."""
        self.created = int(time.time())
        self.config = MedMoEConfig.from_directory(settings.model)
        self.config_sha256 = file_sha256(settings.model / CONFIG_FILE)
        """Of what is served, whatever happens to the file later."""
        self.prompt = Prompt.from_directory(settings.model, self.config)
        self.classifier = LabelScorer(self.engine)
        self.admission = Admission(max_concurrent=settings.max_concurrent, max_queued=settings.max_queued)
        self.tenants = Tenants(
            read_key_file(settings.api_keys) if settings.api_keys else (),
            requests_per_minute=settings.requests_per_minute,
        )
        self.readiness = Readiness(on_failure=on_failure, restarts=self.rebuild is not None)
        self.router_stats = RouterStats(self.config)
        self.metrics = Metrics(
            ready=lambda: self.readiness.phase is Phase.READY,
            in_flight=lambda: self.admission.in_flight,
            places=self.admission.places,
            expert_tokens=self.router_stats.tokens,
            expert_tokens_by_modality=self.router_stats.tokens_by_modality,
            drift=self.router_stats.recent_drift,
            quarantine=self.engine.quarantine,
        )
        self.traces = TraceExport(str(settings.otlp_endpoint)) if settings.otlp_endpoint else None
        self.weights_sha256: str | None = None
        self.adapter_sha256: str | None = None
        self.calibration: Calibration | None = None
        """The checkpoint's own; read when the weights that it must belong to are known."""
        self.starting: asyncio.Task[None] | None = None
        """The start in the background; done when the service is ready or has failed."""
        self.fetcher = ImageFetcher.of(settings)
        """None where the deployment fetches no pictures."""
        self.decoders = DecoderPool.of(settings, self.config)
        self.images = ImageCache(self.decoders, most=settings.image_cache_entries, count=self.metrics.picture)

    @staticmethod
    def of(request: Request) -> "State":
        state: State = request.app.state.medmoe
        return state

    def deadline(self, timeout_ms: int | None) -> Deadline:
        """The request's own limit, never longer than the deployment's."""
        return Deadline(min(timeout_ms or self.settings.timeout_ms, self.settings.timeout_ms) / 1000)

    def require_room(self) -> None:
        """Raises what Readiness.require raises, Overloaded."""
        self.readiness.require()
        self.admission.refuse_when_full()

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """Read a request's body inside. Raises what `require_room` raises, DeadlineExceeded."""
        # Before the body is read: a full house should not also fill its memory.
        self.require_room()
        async with self.deadline(None).guard():
            yield

    async def read_image(
        self, sent: str | bytes, fields: ImageFields, *, deadline: Deadline, record: RequestRecord
    ) -> DecodedImage:
        """Fetch what is sent as a URL, the stage `fetch`; find it kept or decode it in a child process, stage `image`.

        Raises what ImageFetcher.fetch and DecoderPool.decode raise, DeadlineExceeded.
        """
        async with self._in_hand(sent, deadline=deadline, record=record) as data:
            return await self.images.decode(data, fields, salt=record.cache_salt)

    async def render_image(
        self, sent: str | bytes, fields: ImageFields, *, view: View, deadline: Deadline, record: RequestRecord
    ) -> DecodedImage:
        """For people; otherwise as `read_image`."""
        async with self._in_hand(sent, deadline=deadline, record=record) as data:
            return await self.decoders.decode(data, fields, view=view)

    @asynccontextmanager
    async def _in_hand(
        self, sent: str | bytes, *, deadline: Deadline, record: RequestRecord
    ) -> AsyncIterator[str | bytes]:
        """Fetch what is a URL; inside is the stage `image`."""
        if isinstance(sent, str) and is_url(sent):
            if self.fetcher is None:
                raise ImageURLNotAllowed(
                    "this service fetches no image URLs (MEDMOE_IMAGE_URL_HOSTS); send the picture itself as base64"
                )
            with record.stage("fetch"):
                async with deadline.guard():
                    sent = await self.fetcher.fetch(sent)
        with record.stage("image"):
            async with deadline.guard():
                yield sent

    def provenance(self, image: DecodedImage) -> Provenance:
        """What reproduces an answer about `image`."""
        return Provenance(
            image_sha256=image.sha256,
            width=image.width,
            height=image.height,
            rendering=image.rendering,
            mode=self.config.image_processor.mode,
            resized_to=image.size,
            weights_sha256=self.weights_sha256,
            adapter_sha256=self.adapter_sha256,
            dtype=self.engine.dtype,
        )

    async def hash_weights(self) -> None:
        """Fill the hashes and what is bound to them; seconds for gigabytes, hence off the event loop.

        Raises ConfigError when calibration.json or routing_reference.json is malformed, CheckpointError when it belongs
        to other weights.
        """
        directory = self.settings.model
        self.weights_sha256 = await asyncio.to_thread(_sha256, directory / WEIGHTS_FILE)
        self.adapter_sha256 = await asyncio.to_thread(_sha256, directory / ADAPTER_WEIGHTS_FILE)
        if self.weights_sha256 is not None:
            self.calibration = Calibration.of_weights(
                directory, weights_sha256=self.weights_sha256, adapter_sha256=self.adapter_sha256
            )
            self.router_stats.reference = RoutingReference.from_directory(
                directory,
                weights_sha256=self.weights_sha256,
                adapter_sha256=self.adapter_sha256,
                moe_layers=self.config.text_config.moe_layers,
                num_experts=self.config.text_config.num_experts,
            )

    async def require_same_checkpoint(self) -> None:
        """Raises CheckpointError when the files are no longer those whose hashes this service has given out."""
        directory = self.settings.model
        now = [
            await asyncio.to_thread(_sha256, directory / name)
            for name in (CONFIG_FILE, WEIGHTS_FILE, ADAPTER_WEIGHTS_FILE)
        ]
        if now != [self.config_sha256, self.weights_sha256, self.adapter_sha256]:
            raise CheckpointError("the checkpoint has changed since the service was started")

    def hashes(self) -> dict[str, str | None]:
        """What is served, for the log."""
        return {"weights_sha256": self.weights_sha256, "adapter_sha256": self.adapter_sha256}

    def publish(self, record: RequestRecord) -> None:
        """What a finished request becomes besides its log line."""
        self.metrics.record(record)
        if self.traces is not None:
            self.traces.export(record)

    def close(self) -> None:
        self.decoders.close()


def _sha256(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None
