"""The watch of a provider's keys."""

import asyncio
from typing import Any

import pytest

from medmoe.server.auth.oidc import provider as module
from medmoe.server.auth.oidc.provider import Provider


async def test_a_fetch_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    provider = Provider("https://login.hospital.example", jwks_url=None, ca_file=None)
    asked = 0

    async def no_thread(*_: Any) -> bytes:
        nonlocal asked
        asked += 1
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(provider, "_get", no_thread)
    watching = asyncio.create_task(provider.watch())
    async with asyncio.timeout(60):
        while asked < 3:
            await asyncio.sleep(0.01)
    watching.cancel()
    assert provider.is_stale
