"""Tokens after RFC 8725: which are taken, and which are refused."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from medmoe.server.auth.errors import InvalidToken, UnknownSigningKey
from medmoe.server.auth.oidc.signing_keys import SigningKeys
from medmoe.server.auth.oidc.token_verifier import TokenVerifier
from tests.support.service.identity_provider import (
    AUDIENCE,
    claims,
    ec_key,
    ed_key,
    encoded,
    jwk,
    rsa_key,
    signed,
    signed_text,
)

ISSUER = "https://login.hospital.example/realms/ward"
HEADER = {"alg": "RS256", "kid": "rsa"}


def seconds_from_now(seconds: int) -> int:
    return int(time.time()) + seconds


def verifier(**changes: str) -> TokenVerifier:
    return TokenVerifier(
        **{"issuer": ISSUER, "audience": AUDIENCE, "scopes_claim": "scope", "scope_prefix": ""} | changes
    )


def keys(*more: dict[str, Any]) -> SigningKeys:
    ours = [jwk(rsa_key(), kid="rsa"), jwk(ec_key(), kid="ec"), jwk(ed_key(), kid="ed")]
    return SigningKeys.parse(json.dumps({"keys": [*ours, *more]}).encode())


def valid(**changes: Any) -> dict[str, Any]:
    return claims(ISSUER, **changes)


@pytest.mark.parametrize(
    "token",
    [
        lambda: signed(valid()),
        lambda: signed(valid(), algorithm="PS256"),
        lambda: signed(valid(), key=ec_key(), algorithm="ES256", kid="ec"),
        lambda: signed(valid(), key=ed_key(), algorithm="EdDSA", kid="ed"),
        lambda: signed(valid(), key=ec_key(), algorithm="ES256", kid=None),
        lambda: signed(valid(), typ="at+jwt"),
        lambda: signed(valid(aud=["account", AUDIENCE])),
        lambda: signed(valid(exp=seconds_from_now(-20), nbf=seconds_from_now(20))),
        lambda: signed(valid(), x5t="a thumbprint"),
    ],
    ids=["RS256", "PS256", "ES256", "EdDSA", "without kid", "at+jwt", "audiences", "leeway", "other fields"],
)
def test_a_token_of_the_provider_is_taken(token: Callable[[], str]) -> None:
    found = verifier().verify(token(), keys())
    assert (found.issuer, found.subject, found.scopes) == (ISSUER, "ward-7", {"ask", "stats"})


def public_pem() -> str:
    return rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def hs256_with_the_public_key() -> str:
    # PyJWT itself refuses to sign with a public key.
    start = f"{encoded({'alg': 'HS256', 'kid': 'rsa'})}.{encoded(valid())}"
    digest = hmac.new(public_pem().encode(), start.encode(), hashlib.sha256).digest()
    return f"{start}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def tampered() -> str:
    header, _, signature = signed(valid()).split(".")
    return f"{header}.{encoded(valid(sub='another'))}.{signature}"


def deep() -> str:
    return signed_text(HEADER, '{"a":' + "[" * 5000 + "]" * 5000 + "}")


OTHER = rsa_key(1)


def private_jwk(key: Any, *, kid: str) -> dict[str, Any]:
    found: dict[str, Any] = RSAAlgorithm.to_jwk(key, as_dict=True)
    return found | {"kid": kid, "key_ops": ["sign", "verify"]}


BAD: dict[str, Callable[[], str]] = {
    "no algorithm": lambda: f"{encoded({'alg': 'none', 'kid': 'rsa'})}.{encoded(valid())}.",
    "no algorithm, signed": lambda: f"{encoded({'alg': 'none', 'kid': 'rsa'})}.{encoded(valid())}.AAAA",
    "algorithm None": lambda: signed_text({"alg": None, "kid": "rsa"}, valid()),
    "algorithm in other letters": lambda: signed_text({"alg": "rs256", "kid": "rsa"}, valid()),
    "HS256 with the public key": hs256_with_the_public_key,
    "HS256": lambda: signed(valid(), key="k" * 32, algorithm="HS256"),
    "RS384": lambda: signed(valid(), algorithm="RS384"),
    "ES256 with an RSA key": lambda: signed(valid(), key=ec_key(), algorithm="ES256", kid="rsa"),
    "another key of the same id": lambda: signed(valid(), key=OTHER),
    "an unknown key id": lambda: signed(valid(), key=OTHER, kid="other"),
    "a path as key id": lambda: signed(valid(), key="\0" * 32, algorithm="HS256", kid="../../../../dev/null"),
    "a path as key id, RS256": lambda: signed(valid(), key=OTHER, kid="../../../../dev/null"),
    "an injection as key id": lambda: signed(valid(), key=OTHER, kid="x' UNION SELECT 'key"),
    "a number as key id": lambda: signed_text({"alg": "RS256", "kid": 5}, valid()),
    "a long key id": lambda: signed(valid(), key=OTHER, kid="k" * 300),
    "its own key": lambda: signed(valid(), key=OTHER, jwk=jwk(OTHER, kid="rsa")),
    "its own key address": lambda: signed(valid(), key=OTHER, jku="http://127.0.0.1:9/keys"),
    "its own certificate address": lambda: signed(valid(), key=OTHER, kid="other", x5u="http://127.0.0.1:9/pem"),
    "its own certificate": lambda: signed(valid(), key=OTHER, kid="other", x5c=["MIIB"]),
    "an unknown critical field": lambda: signed_text(HEADER | {"crit": ["exp"], "exp": seconds_from_now(0)}, valid()),
    "an unencoded payload": lambda: signed_text(HEADER | {"crit": ["b64"], "b64": False}, valid()),
    "compressed": lambda: signed_text(HEADER | {"zip": "DEF"}, valid()),
    "a nested token": lambda: signed_text(HEADER | {"cty": "JWT"}, signed(valid())),
    "a token in place of the claims": lambda: signed_text(HEADER, json.dumps(signed(valid()))),
    "encrypted": lambda: ".".join([encoded({"alg": "RSA-OAEP", "enc": "A256GCM"}), "a", "b", "c", "d"]),
    "a logout token": lambda: signed(valid(), typ="logout+jwt"),
    "a proof": lambda: signed(valid(), typ="dpop+jwt"),
    "expired": lambda: signed(valid(exp=seconds_from_now(-120))),
    "not yet valid": lambda: signed(valid(nbf=seconds_from_now(600))),
    "issued in the future": lambda: signed(valid(iat=seconds_from_now(600))),
    "another audience": lambda: signed(valid(aud="account")),
    "audiences without this one": lambda: signed(valid(aud=["account", "medmoe2"])),
    "another issuer": lambda: signed(valid(iss="https://login.hospital.example/realms/other")),
    "an issuer with a slash more": lambda: signed(valid(iss=f"{ISSUER}/")),
    "without exp": lambda: signed(valid(exp=None)),
    "without aud": lambda: signed(valid(aud=None)),
    "without iss": lambda: signed(valid(iss=None)),
    "without sub": lambda: signed(valid(sub=None)),
    "an empty sub": lambda: signed(valid(sub="")),
    "a long sub": lambda: signed(valid(sub="s" * 256)),
    "a number as sub": lambda: signed_text(HEADER, valid(sub=7)),
    "exp as text": lambda: signed_text(HEADER, valid(exp=str(seconds_from_now(300)))),
    "exp beyond numbers": lambda: signed_text(HEADER, valid(exp=float("inf"))),
    "exp far beyond": lambda: signed_text(HEADER, json.dumps(valid(exp=7)).replace(": 7", ": 1e999")),
    "a claim twice": lambda: signed_text(HEADER, json.dumps(valid())[:-1] + ', "sub": "another"}'),
    "a header field twice": lambda: signed_text('{"alg": "RS256", "alg": "none", "kid": "rsa"}', valid()),
    "huge": lambda: signed(valid(more="x" * 20_000)),
    "deep": deep,
    "a list of claims": lambda: signed_text(HEADER, [valid()]),
    "claims that are not JSON": lambda: signed_text(HEADER, "sub=ward-7"),
    "a list as header": lambda: signed_text([HEADER], valid()),
    "changed claims": tampered,
    "no signature": lambda: signed(valid()).rpartition(".")[0] + ".",
    "a cut signature": lambda: signed(valid())[:-8],
    "padding": lambda: signed(valid()) + "==",
    "white space": lambda: signed(valid()) + "\n",
    "another script": lambda: signed(valid()) + "é",
}


OF_UNKNOWN_KEYS = {
    "ES256 with an RSA key", "an unknown key id", "a path as key id, RS256", "an injection as key id",
    "its own certificate address", "its own certificate",
}  # fmt: skip
"""For these, and no others, the provider is asked whether it has new keys."""


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused_and_never_quoted(name: str) -> None:
    token = BAD[name]()
    with pytest.raises(InvalidToken) as refused:
        verifier().verify(token, keys())
    assert isinstance(refused.value, UnknownSigningKey) == (name in OF_UNKNOWN_KEYS)
    assert not {part for part in token.split(".") if len(part) > 3 and part in str(refused.value)}
    assert "ward-7" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
@pytest.mark.parametrize(
    ("key", "token"),
    [
        (lambda: jwk(OTHER, kid="other", use="enc"), lambda: signed(valid(), key=OTHER, kid="other")),
        (lambda: jwk(OTHER, kid="other", alg="RS384"), lambda: signed(valid(), key=OTHER, kid="other")),
        (lambda: jwk(OTHER, kid="other", alg="PS256"), lambda: signed(valid(), key=OTHER, kid="other")),
        (lambda: jwk(OTHER, kid="other", key_ops=["encrypt"]), lambda: signed(valid(), key=OTHER, kid="other")),
        (
            lambda: jwk(rsa_key(2, bits=1024), kid="weak"),
            lambda: signed(valid(), key=rsa_key(2, bits=1024), kid="weak"),
        ),
        (
            lambda: {"kty": "oct", "kid": "shared", "k": encoded("k" * 32)},
            lambda: signed(valid(), key="k" * 32, algorithm="HS256", kid="shared"),
        ),
        (lambda: jwk(OTHER, kid=7), lambda: signed(valid(), key=OTHER, kid=None)),
        (lambda: private_jwk(OTHER, kid="other"), lambda: signed(valid(), key=OTHER, kid="other")),
    ],
    ids=["encryption", "other algorithm", "PSS only", "other operation", "short", "shared secret", "odd id", "private"],
)
def test_a_key_of_another_use_signs_nothing(key: Callable[[], dict[str, Any]], token: Callable[[], str]) -> None:
    with pytest.raises(InvalidToken):
        verifier().verify(token(), keys(key()))


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": [5, {"kty": "EC", "crv": []}]}'])
def test_a_document_without_keys_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):
        SigningKeys.parse(document)


@pytest.mark.parametrize("operations", [True, 7, "verify", {"verify": 1}])
def test_a_key_that_is_none_takes_no_other_away(operations: Any) -> None:
    found = keys(jwk(OTHER, kid="other", key_ops=operations))
    assert verifier().verify(signed(valid()), found).subject == "ward-7"
    with pytest.raises(UnknownSigningKey):
        verifier().verify(signed(valid(), key=OTHER, kid="other"), found)


def test_an_unknown_key_is_told_apart_because_a_fetch_may_help() -> None:
    with pytest.raises(UnknownSigningKey):
        verifier().verify(signed(valid(), kid="next"), keys())


@pytest.mark.parametrize(
    ("changes", "setting", "scopes"),
    [
        ({"scope": "ask"}, {}, {"ask"}),
        ({"scope": "asking stats-all"}, {}, set()),
        ({"scope": None}, {}, set()),
        ({"scope": ["ask", "admin", 5]}, {}, {"ask", "admin"}),
        ({"scp": "medmoe.ask stats"}, {"scopes_claim": "scp", "scope_prefix": "medmoe."}, {"ask"}),
        ({"realm_access": {"roles": ["stats"]}}, {"scopes_claim": "realm_access.roles"}, {"stats"}),
        ({"https://x.example/roles": ["ask"]}, {"scopes_claim": "https://x.example/roles"}, {"ask"}),
        ({"realm_access": "roles"}, {"scopes_claim": "realm_access.roles"}, set()),
    ],
)
def test_scopes_come_from_the_claim(changes: dict[str, Any], setting: dict[str, str], scopes: set[str]) -> None:
    assert verifier(**setting).verify(signed(valid(**changes)), keys()).scopes == scopes


def test_the_library_is_the_one_that_checks_signatures() -> None:
    """A token that differs in one bit of its signature."""
    token = signed(valid())
    last = "A" if token[-10] != "A" else "B"
    with pytest.raises(InvalidToken, match="signature") as refused:
        verifier().verify(token[:-10] + last + token[-9:], keys())
    assert isinstance(refused.value.__cause__, jwt.InvalidSignatureError)
