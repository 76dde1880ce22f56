"""Authenticate a request and limit its rate before its body is read, as FastAPI dependencies."""

from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers

from medmoe.server.auth.tenants import Grant
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.requests import named
from medmoe.server.state import State

_SCHEME = "bearer"
_BEARER = HTTPBearer(
    auto_error=False, description="An API key or a token of the identity provider, where the deployment has either."
)

Chosen = Annotated[
    str | None,
    Query(
        description="A model as `GET /v1/models` names it; absent: the active one.",
        openapi_examples=named({"bundled_checkpoint": "medmoe-tiny"}),
    ),
]


async def authenticated(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Grant:
    """Return what the `Authorization: Bearer` key grants, and note it on the record.

    Raises Unauthenticated, InvalidToken, ProviderUnavailable.
    """
    record = RequestRecord.of(request.scope)
    if record.batch is not None and record.grant is not None:
        record.grant.require_valid()
        return record.grant
    key = credentials.credentials if credentials and has_one_authorization(request.headers) else None
    grant = await State.of(request).authenticator.authenticate(key)
    record.grant = grant
    return grant


async def may_ask(grant: Annotated[Grant, Depends(authenticated)]) -> Grant:
    """Return the grant of a caller who may ask. Raises Unauthenticated, InsufficientScope."""
    grant.require("ask")
    return grant


async def may_read_stats(grant: Annotated[Grant, Depends(authenticated)]) -> None:
    """Let in callers who may read statistics and metrics. Raises Unauthenticated, InsufficientScope."""
    grant.require("stats")


async def may_administer(grant: Annotated[Grant, Depends(authenticated)]) -> None:
    """Let in callers who may change what is served. Raises Unauthenticated, InsufficientScope."""
    grant.require("admin")


def has_one_authorization(headers: Headers) -> bool:
    """Return whether `Authorization` comes once; of two, a proxy in front may have checked the other."""
    return len(headers.getlist("authorization")) == 1


def bearer_key(headers: Headers) -> str | None:
    """Return the bearer key in `headers`, for requests that are refused before the framework reads them."""
    if not has_one_authorization(headers):
        return None
    scheme, key = get_authorization_scheme_param(headers.get("authorization"))
    return key if key and scheme.lower() == _SCHEME else None


async def within_rate(request: Request, grant: Annotated[Grant, Depends(authenticated)]) -> None:
    """Count the request of a caller who may ask against the tenant's rate limit.

    Raises Unauthenticated, InsufficientScope, RateLimited.

    Lines of batches do not count: they give way to every other request.
    """
    grant.require("ask")
    if RequestRecord.of(request.scope).batch is None:
        grant.tenant.spend()


async def audited(request: Request, _: Annotated[None, Depends(within_rate)]) -> None:
    """Let in callers of whose request a record can be written; each counts against the rate, for it takes the disk.

    Raises Unauthenticated, InsufficientScope, RateLimited, AuditUnavailable.
    """
    State.of(request).require_audit()
