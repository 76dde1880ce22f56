"""The service behind its edge, on a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from medmoe.server.edge.limits import ConnectionLimits
from tests.integration.conftest import ServiceFactory
from tests.support.service.listening import Listen, Listening, served


@pytest.fixture
def listening(running: ServiceFactory) -> Listen:
    """`async with listening(**settings) as listening:`, on a port of its own; `patience` is the keep-alive time."""

    @asynccontextmanager
    async def factory(
        *, patience: int = 5, limits: ConnectionLimits | None = None, **settings: Any
    ) -> AsyncIterator[Listening]:
        async with running(**settings) as service, served(service.app, patience=patience, limits=limits) as port:
            yield Listening(service=service, port=port)

    return factory
