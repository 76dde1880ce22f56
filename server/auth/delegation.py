"""Store in whose name work runs after its request has ended, without any credential."""

from typing import Self

from pydantic import BaseModel

from medmoe.server.auth.scopes import Scope
from medmoe.server.auth.tenants import Grant, Tenant


class Delegation(BaseModel):
    """Identify a grant by digests; Authenticator.redeem returns what it grants now."""

    owner: str
    key_id: str | None
    """None for the subject of a token: tokens end within the hour, so the scopes of the request hold on."""
    scopes: tuple[Scope, ...]
    log_id: str | None
    cache_salt: str | None

    @classmethod
    def of(cls, grant: Grant) -> Self:
        """Return the delegation of `grant`."""
        tenant = grant.tenant
        return cls(
            owner=tenant.owner,
            key_id=grant.key_id,
            scopes=tuple(sorted(grant.scopes)),
            log_id=tenant.log_id,
            cache_salt=tenant.cache_salt,
        )

    def token_grant(self) -> Grant:
        """Return the grant of a token's subject."""
        tenant = Tenant(log_id=self.log_id, cache_salt=self.cache_salt, owner=self.owner)
        return Grant(tenant=tenant, scopes=frozenset(self.scopes))
