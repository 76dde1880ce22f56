"""Find out who sends a request, by an API key or a token of the identity provider."""

import asyncio
from collections.abc import Callable

from medmoe.server.auth.api_keys import WatchedKeys
from medmoe.server.auth.delegation import Delegation
from medmoe.server.auth.errors import ProviderUnavailable, UnknownSigningKey
from medmoe.server.auth.oidc.provider import Provider
from medmoe.server.auth.oidc.subjects import Subjects
from medmoe.server.auth.oidc.token_verifier import looks_like_token
from medmoe.server.auth.tenants import ANONYMOUS, Grant, Tenant
from medmoe.server.errors import Unauthenticated


class Authenticator:
    """Authenticates bearers of API keys and tokens; without either everyone is the one anonymous tenant."""

    def __init__(
        self, keys: WatchedKeys | None, *, subjects: Subjects | None = None, requests_per_minute: int | None
    ) -> None:
        """Pass the rate limit of the anonymous tenant."""
        self.keys = keys
        self.subjects = subjects
        self._anonymous: Grant | None = None
        if keys is None and subjects is None:
            self._anonymous = Grant(tenant=Tenant(log_id=None, cache_salt=None))
            self._anonymous.tenant.limit(requests_per_minute)

    @property
    def provider(self) -> Provider | None:
        """Return the identity provider, where there is one."""
        return None if self.subjects is None else self.subjects.provider

    async def authenticate(self, credential: str | None) -> Grant:
        """Return what `credential` grants; a token with an unknown key is tried again with the provider's present keys.

        Raises Unauthenticated, InvalidToken, ProviderUnavailable.
        """
        try:
            return self.find(credential)
        except (UnknownSigningKey, ProviderUnavailable):
            assert self.provider is not None
            await self.provider.look_again()
            return self.find(credential)

    def find(self, credential: str | None) -> Grant:
        """Return what `credential` grants, by what is known now. Raises what `authenticate` raises."""
        if self._anonymous is not None:
            return self._anonymous
        if not credential:
            raise Unauthenticated
        grant = self.keys.find(credential) if self.keys is not None else None
        if grant is None and self.subjects is not None and looks_like_token(credential):
            grant = self.subjects.find(credential)
        if grant is None:
            raise Unauthenticated
        return grant

    def redeem(self, delegation: Delegation) -> Grant:
        """Return the grant in whose name stored work runs now.

        Raises Unauthenticated when its API key is gone, or when no client can authenticate as its owner did.
        """
        owner = delegation.owner
        if owner == ANONYMOUS:
            grant = self._anonymous
        elif delegation.key_id is not None:
            grant = self.keys.find_id(delegation.key_id) if self.keys is not None else None
        else:
            grant = delegation.token_grant() if self.subjects is not None else None
        if grant is None or grant.tenant.owner != owner:
            raise Unauthenticated("the API key was revoked")
        return grant

    async def watch(self, on_revoked: Callable[[], None]) -> None:
        """Follow changes of the keys for ever; call `on_revoked` after one that revokes some."""
        async with asyncio.TaskGroup() as tasks:
            if self.keys is not None:
                tasks.create_task(self.keys.watch(on_revoked))
            if self.provider is not None:
                tasks.create_task(self.provider.watch())
