"""Hold who sends requests: a tenant with its rate limit and cache salt, and what a key or token grants it."""

import hashlib
from dataclasses import dataclass
from typing import Self

from medmoe.server.auth.errors import InsufficientScope
from medmoe.server.auth.rate_limit import TokenBucket
from medmoe.server.auth.scopes import ALL_SCOPES, Scope
from medmoe.server.errors import Unauthenticated

ANONYMOUS = "anonymous"
"""Owner of what is stored where clients do not authenticate; no digest."""


@dataclass(kw_only=True, slots=True, eq=False)
class Tenant:
    """The owner of one or several API keys, or the subject of an identity provider."""

    log_id: str | None
    """Identifies the tenant in log lines; None when clients need not authenticate."""
    cache_salt: str | None
    """Separates the engine's caches by tenant: an answer's speed would tell one tenant of another's requests."""
    owner: str = ANONYMOUS
    """Identifies the tenant in stored files and batches."""
    bucket: TokenBucket | None = None
    """None: no limit for each tenant."""

    @classmethod
    def of(cls, identity: str) -> Self:
        """Return the tenant whose digests come from `identity`."""
        return cls(
            log_id=_digest(f"log {identity}")[:12],
            cache_salt=_digest(f"cache {identity}"),
            owner=_digest(f"owner {identity}"),
        )

    def limit(self, requests_per_minute: int | None) -> None:
        """Set the rate limit; one that stays the same keeps what is left of it."""
        if requests_per_minute is None:
            self.bucket = None
        elif self.bucket is None or self.bucket.per_minute != requests_per_minute:
            self.bucket = TokenBucket(per_minute=requests_per_minute)

    def spend(self) -> None:
        """Count one request. Raises RateLimited."""
        if self.bucket is not None:
            self.bucket.take()


@dataclass(kw_only=True, slots=True, eq=False)
class Grant:
    """Rights of one API key or token: a tenant's name and scopes."""

    tenant: Tenant
    scopes: frozenset[Scope] = ALL_SCOPES
    key_id: str | None = None
    """Digest of the API key; None for a token, and where clients do not authenticate."""
    revoked: bool = False
    """Whether the key has left the key file."""

    def require(self, scope: Scope) -> None:
        """Raise InsufficientScope unless the bearer has `scope`."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise InsufficientScope(scope)

    def require_valid(self) -> None:
        """Raise Unauthenticated when the key was revoked after its request came."""
        if self.revoked:
            raise Unauthenticated("the API key was revoked")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
