"""Find a source by its name, and fetch, list and store in it."""

from collections.abc import Mapping

from medmoe.server.dicomweb import qido, stow, wado
from medmoe.server.dicomweb.connection import SourceConnections
from medmoe.server.dicomweb.errors import SourceNotFound
from medmoe.server.dicomweb.listing import InstanceInfo, SeriesInfo, SourceInfo, StudyInfo
from medmoe.server.dicomweb.sources import Source, read_sources
from medmoe.server.errors import InvalidField
from medmoe.server.schemas.inference import InstanceReference, SeriesReference
from medmoe.server.settings import Settings


class DICOMwebClient:
    """The DICOMweb sources of a deployment. Every method also raises what SourceConnections.request raises."""

    def __init__(self, sources: Mapping[str, Source], *, max_bytes: int, seconds: float, at_once: int) -> None:
        """Fetch objects of at most `max_bytes`, each within `seconds`, `at_once` at a time."""
        self._sources = dict(sources)
        self._max_bytes = max_bytes
        self._connections = SourceConnections(seconds=seconds, at_once=at_once)

    @classmethod
    def of(cls, settings: Settings) -> "DICOMwebClient":
        """Raise ConfigError when the file of sources, or one that it names, cannot be used."""
        return cls(
            read_sources(settings.dicomweb_sources),
            max_bytes=settings.max_body_bytes,
            seconds=settings.dicomweb_seconds,
            at_once=settings.dicomweb_requests,
        )

    @property
    def sources(self) -> tuple[SourceInfo, ...]:
        return tuple(SourceInfo(name=source.name, store=source.store) for source in self._sources.values())

    async def retrieve(self, reference: InstanceReference) -> bytes:
        """Return the DICOM file of an instance. Raises SourceNotFound, InstanceTooLarge."""
        source = self._source(reference.source)
        return await wado.retrieve(self._connections, source, reference, max_bytes=self._max_bytes)

    async def metadata(self, series: SeriesReference) -> bytes:
        """Return the metadata of a series, DICOM JSON. Raises SourceNotFound, InstanceTooLarge."""
        return await wado.metadata(self._connections, self._source(series.source), series, max_bytes=self._max_bytes)

    async def list_studies(self, source: str, *, filters: Mapping[str, str], limit: int) -> tuple[StudyInfo, ...]:
        """Return studies; `filters` are attribute keywords with QIDO-RS values. Raises SourceNotFound."""
        return await qido.list_studies(self._connections, self._source(source), filters=filters, limit=limit)

    async def list_series(self, source: str, study: str, *, limit: int) -> tuple[SeriesInfo, ...]:
        """Return the series of a study. Raises SourceNotFound."""
        return await qido.list_series(self._connections, self._source(source), study, limit=limit)

    async def list_instances(self, source: str, study: str, series: str, *, limit: int) -> tuple[InstanceInfo, ...]:
        """Return the instances of a series. Raises SourceNotFound."""
        return await qido.list_instances(self._connections, self._source(source), study, series, limit=limit)

    def require_store(self, name: str) -> None:
        """Raise SourceNotFound for an unknown source, InvalidField for one that takes no reports."""
        if not self._source(name).store:
            raise InvalidField(
                "this source takes no reports; its operator may allow it with store = true", param="store"
            )

    async def store(self, name: str, study: str, data: bytes) -> None:
        """Store a DICOM file in a study. Raises what `require_store` raises, StoreFailed."""
        self.require_store(name)
        await stow.store(self._connections, self._source(name), study, data)

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            raise SourceNotFound()
        return self._sources[name]
