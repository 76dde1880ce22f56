"""Read a JSON Web Key Set (RFC 7517) and find the key of a token.

Each key serves only the algorithms of its own type, so that a token cannot choose how its key is used (RFC 8725, 3.1).
"""

import json
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
"""Signature algorithms that a token may have: none without a key, and none with a shared secret."""
_BY_TYPE = {("RSA", None): ("RS256", "PS256"), ("EC", "P-256"): ("ES256",), ("OKP", "Ed25519"): ("EdDSA",)}
"""Algorithms by the type and curve of a key."""
_LEAST_RSA_BITS = 2048
_MOST_KEYS = 100


class SigningKeys:
    """The public keys of a provider that sign tokens."""

    def __init__(self, keys: dict[tuple[str | None, str], jwt.PyJWK]) -> None:
        """Pass keys by key id and algorithm."""
        self._keys = keys

    @classmethod
    def parse(cls, document: bytes) -> Self:
        """Read a key set, without the keys that sign no tokens. Raises ValueError when it is none or none is left."""
        found = json.loads(document)
        listed = found.get("keys") if isinstance(found, dict) else None
        if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
            raise ValueError("not a JSON Web Key Set")
        keys: dict[tuple[str | None, str], jwt.PyJWK] = {}
        for one in listed:
            for algorithm in _algorithms(one):
                key = _key(one, algorithm)
                if key is not None:
                    keys.setdefault((one.get("kid"), algorithm), key)
        if not keys:
            raise ValueError("a JSON Web Key Set without a key that signs tokens")
        return cls(keys)

    def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key, None for an unknown one; without a key id the only key of the algorithm."""
        if key_id is not None:
            return self._keys.get((key_id, algorithm))
        fitting = [key for (_, known), key in self._keys.items() if known == algorithm]
        return fitting[0] if len(fitting) == 1 else None


def _algorithms(key: Any) -> tuple[str, ...]:
    """Return the algorithms that a key of the set verifies; none for a key of another use, or a secret one."""
    if not isinstance(key, dict) or "d" in key or key.get("use", "sig") != "sig":
        return ()
    operations = key.get("key_ops") or ["verify"]
    if not isinstance(operations, list) or "verify" not in operations or not isinstance(key.get("kid"), str | None):
        return ()
    curve = None if key.get("kty") == "RSA" else key.get("crv")
    fitting = next((found for kind, found in _BY_TYPE.items() if kind == (key.get("kty"), curve)), ())
    return tuple(algorithm for algorithm in fitting if key.get("alg", algorithm) == algorithm)


def _key(key: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        read = jwt.PyJWK(key, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if isinstance(read.key, RSAPublicKey) and read.key.key_size < _LEAST_RSA_BITS:
        return None
    return read
