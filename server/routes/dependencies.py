"""The two questions asked of a request before anything of its body is read: who is it, and not again so soon?

FastAPI dependencies, so that a route that forgets them is found by a test over the route table.
"""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers

from medmoe.server.auth.tenants import Tenant
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.state import State

_SCHEME = "bearer"
_BEARER = HTTPBearer(auto_error=False, description="An API key, where the deployment has keys.")


async def authenticated(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Tenant:
    """The tenant whose key came as `Authorization: Bearer`; noted on the record. Raises Unauthenticated."""
    tenant = State.of(request).tenants.find(credentials.credentials if credentials else None)
    RequestRecord.of(request.scope).tenant = tenant
    return tenant


def bearer_key(headers: Headers) -> str | None:
    """What `authenticated` is given as credentials, for requests that do not get as far as the framework."""
    scheme, key = get_authorization_scheme_param(headers.get("authorization"))
    return key if key and scheme.lower() == _SCHEME else None


async def within_rate(tenant: Annotated[Tenant, Depends(authenticated)]) -> None:
    """For routes that cost the engine something. Raises Unauthenticated, RateLimited."""
    tenant.spend()
