"""Verify a bearer token: a signed JWT of the provider for this service, after RFC 8725.

Nothing of a token is logged, and no error quotes it.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jwt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medmoe.server.auth.errors import InvalidToken, UnknownSigningKey
from medmoe.server.auth.oidc.signing_keys import ALGORITHMS, SigningKeys
from medmoe.server.auth.scopes import Scope, known_scopes

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_MAX_CHARS = 16 * 1024
_MAX_KEY_ID = 256
_LEEWAY_SECONDS = 60
"""How far the provider's clock may be from this one."""
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""Media types of access tokens; tokens for another purpose, such as logout, have others."""
_NOT_UNDERSTOOD = frozenset({"crit", "b64", "cty", "enc", "zip"})
"""Header fields that change what the token means. Others are ignored, also those that offer a key."""
_REQUIRED = ("exp", "iss", "aud", "sub")
_REASONS: Mapping[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is of another issuer",
    jwt.InvalidSignatureError: "the signature of the token is not valid",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Whom a valid token was issued to."""

    issuer: str
    subject: str
    scopes: frozenset[Scope]


class _Claims(BaseModel):
    """The registered claims, in the types that RFC 7519 gives them."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    iss: str
    sub: Annotated[str, Field(min_length=1, max_length=255)]
    aud: str | list[str]
    exp: int | float
    nbf: int | float | None = None
    iat: int | float | None = None


class TokenVerifier:
    """Verifies the tokens of one issuer for one audience."""

    def __init__(self, *, issuer: str, audience: str, scopes_claim: str, scope_prefix: str) -> None:
        """`scopes_claim` names the claim of the scopes, each of which begins with `scope_prefix`."""
        self._issuer = issuer
        self._audience = audience
        self._scopes_claim = scopes_claim
        self._scope_prefix = scope_prefix

    def verify(self, token: str, keys: SigningKeys) -> Subject:
        """Return the subject of a valid `token`. Raises InvalidToken, and UnknownSigningKey where others may help."""
        if len(token) > _MAX_CHARS or not looks_like_token(token):
            raise InvalidToken("the token is not a signed JWT of a usual size")
        header, payload = (_json_object(part) for part in token.split(".")[:2])
        key = keys.find(*_key_reference(header))
        if key is None:
            raise UnknownSigningKey
        try:
            claims = _Claims.model_validate(payload)
        except ValidationError as error:
            raise InvalidToken("a claim of the token is missing or of the wrong type") from error
        try:
            jwt.decode(
                token,
                key,
                algorithms=[header["alg"]],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": list(_REQUIRED)},
            )
        except jwt.PyJWTError as error:
            raise InvalidToken(_REASONS.get(type(error))) from error
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidToken from error
        return Subject(issuer=claims.iss, subject=claims.sub, scopes=self._scopes(payload))

    def _scopes(self, payload: dict[str, Any]) -> frozenset[Scope]:
        """Return the scopes of the claim: a string with spaces, or a list."""
        found: Any = payload.get(self._scopes_claim)
        if found is None:
            found = payload
            for name in self._scopes_claim.split("."):
                found = found.get(name) if isinstance(found, dict) else None
        listed = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
        names = [name for name in listed if isinstance(name, str) and name.startswith(self._scope_prefix)]
        return known_scopes([name.removeprefix(self._scope_prefix) for name in names])


def looks_like_token(credential: str) -> bool:
    """Return whether `credential` has the form of a signed JWT: three parts of base64url."""
    return _COMPACT.fullmatch(credential) is not None


def _key_reference(header: dict[str, Any]) -> tuple[str | None, str]:
    """Return the key id and the algorithm of a header. Raises InvalidToken for one that is not understood."""
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if algorithm not in ALGORITHMS:
        raise InvalidToken("the algorithm of the token is not allowed")
    if header.keys() & _NOT_UNDERSTOOD:
        raise InvalidToken("the header of the token has fields that are not understood")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise InvalidToken("the token is of another type")
    if "kid" in header and not (isinstance(key_id, str) and len(key_id) <= _MAX_KEY_ID):
        raise InvalidToken("the key id of the token is not valid")
    return key_id, algorithm


def _json_object(part: str) -> dict[str, Any]:
    """Return the JSON object in a part of a token. Raises InvalidToken, also for a name that comes twice."""
    try:
        decoded = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        found = json.loads(decoded, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise InvalidToken("a part of the token is not JSON") from error
    if not isinstance(found, dict):
        raise InvalidToken("a part of the token is not a JSON object")
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError("not a number of JSON")
