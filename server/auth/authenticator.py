"""Find out who sends a request, by an API key."""

import asyncio
from collections.abc import Callable

from medmoe.server.auth.api_keys import WatchedKeys
from medmoe.server.auth.tenants import Grant, Tenant
from medmoe.server.errors import Unauthenticated


class Authenticator:
    """Authenticates the bearers of API keys; without keys everyone is the one anonymous tenant."""

    def __init__(self, keys: WatchedKeys | None, *, requests_per_minute: int | None) -> None:
        """Pass the rate limit of a tenant that has none of its own."""
        self.keys = keys
        self._anonymous: Grant | None = None
        if keys is None:
            self._anonymous = Grant(tenant=Tenant(log_id=None, cache_salt=None))
            self._anonymous.tenant.limit(requests_per_minute)

    def find(self, credential: str | None) -> Grant:
        """Return what `credential` grants. Raises Unauthenticated."""
        if self._anonymous is not None:
            return self._anonymous
        grant = self.keys.find(credential) if credential and self.keys else None
        if grant is None:
            raise Unauthenticated("send a valid API key")
        return grant

    async def watch(self, on_revoked: Callable[[], None]) -> None:
        """Follow changes of the keys for ever; call `on_revoked` after one that revokes some."""
        if self.keys is not None:
            await self.keys.watch(on_revoked)
        await asyncio.Event().wait()
