"""Authenticate bearer tokens: the subject of the provider is the tenant."""

import json

from cachetools import LRUCache

from medmoe.server.auth.oidc.provider import Provider
from medmoe.server.auth.oidc.token_verifier import TokenVerifier
from medmoe.server.auth.tenants import Grant, Tenant

_MOST_TENANTS = 10_000
"""Subjects whose rates are remembered."""


class Subjects:
    """The subjects of a provider."""

    def __init__(self, provider: Provider, verifier: TokenVerifier, *, requests_per_minute: int | None) -> None:
        """Pass the rate limit of each subject."""
        self.provider = provider
        self._verifier = verifier
        self._requests_per_minute = requests_per_minute
        self._tenants: LRUCache[tuple[str, str], Tenant] = LRUCache(maxsize=_MOST_TENANTS)

    def find(self, token: str) -> Grant:
        """Return what a valid `token` grants. Raises InvalidToken, UnknownSigningKey, ProviderUnavailable."""
        found = self._verifier.verify(token, self.provider.keys)
        identity = (found.issuer, found.subject)
        tenant = self._tenants.get(identity)
        if tenant is None:
            # No name in a key file has a space or a bracket.
            tenant = self._tenants[identity] = Tenant.of(f"oidc {json.dumps(identity)}")
            tenant.limit(self._requests_per_minute)
        return Grant(tenant=tenant, scopes=found.scopes)
