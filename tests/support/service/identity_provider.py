"""An OpenID Connect provider on this machine: it signs tokens and shows its keys."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "medmoe"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(number: int = 0, *, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return one of several RSA keys, each the same all the time."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    """Return the Ed25519 key."""
    return ed25519.Ed25519PrivateKey.generate()


def jwk(key: PrivateKey, **fields: Any) -> dict[str, Any]:
    """Return the public half of `key` as a JSON Web Key."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        found = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        found = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        found = OKPAlgorithm.to_jwk(public, as_dict=True)
    return {**found, "use": "sig", **fields}


def claims(issuer: str, **changes: Any) -> dict[str, Any]:
    """Return the claims of a valid token; a change to None leaves a claim out."""
    now = int(time.time())
    valid = {"iss": issuer, "sub": "ward-7", "aud": AUDIENCE, "iat": now, "exp": now + 300, "scope": "openid ask stats"}
    return {name: value for name, value in (valid | changes).items() if value is not None}


def signed(payload: dict[str, Any], *, key: Any = None, algorithm: str = "RS256", **header: Any) -> str:
    """Return a token; its `kid` is `rsa` unless the `header` says otherwise."""
    fields = {name: value for name, value in ({"kid": "rsa"} | header).items() if value is not None}
    return jwt.encode(payload, key if key is not None else rsa_key(), algorithm=algorithm, headers=fields)


def encoded(document: Any) -> str:
    """Return a document, or a text that is taken as it is, as a part of a token."""
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def signed_text(header: Any, payload: Any) -> str:
    """Return a token of these texts with a valid RS256 signature, whatever they are."""
    start = f"{encoded(header)}.{encoded(payload)}"
    signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(start.encode(), rsa_key())
    return f"{start}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@dataclass(kw_only=True, slots=True)
class IdentityProvider:
    """A listening provider."""

    issuer: str
    keys: list[dict[str, Any]] = field(default_factory=lambda: [jwk(rsa_key(), kid="rsa")])
    asked: list[str] = field(default_factory=list)
    """Paths of the requests so far."""
    fails: bool = False
    document: bytes | None = None
    """What is sent instead of the keys."""

    def token(self, **changes: Any) -> str:
        """Return a token that is valid but for the `changes` of its claims."""
        return signed(claims(self.issuer, **changes))


@contextmanager
def identity_provider() -> Iterator[IdentityProvider]:
    """Run a provider on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked.append(self.path)
            found: dict[str, Any] | None = {
                "/.well-known/openid-configuration": {
                    "issuer": provider.issuer,
                    "jwks_uri": f"{provider.issuer}/keys",
                },
                "/keys": {"keys": provider.keys},
            }.get(self.path)
            body = json.dumps(found).encode()
            if self.path == "/keys" and provider.document is not None:
                body = provider.document
            self.send_response(500 if provider.fails else 200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = IdentityProvider(issuer=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
