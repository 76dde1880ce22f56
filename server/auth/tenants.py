"""Authenticate API keys by their hashes; give each tenant its own rate limit and cache salt.

A line of the key file is `name sha256-of-the-key`. Keys are 256 random bits, so that a fast hash is enough: a slow one
would only let a flood of guesses cost more.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.bounded_read import read_bounded
from medmoe.server.auth.rate_limit import TokenBucket
from medmoe.server.errors import Unauthenticated

_LINE = re.compile(r"([A-Za-z0-9._-]{1,64})[ \t]+([0-9a-f]{64})")
_PREFIX = "mm-"
_MAX_FILE_BYTES = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """The owner of one or several API keys."""

    log_id: str | None
    """Identifies the tenant in log lines; None when there are no keys."""
    cache_salt: str | None
    """Separates the engine's caches by tenant: an answer's speed would tell one tenant of another's requests."""
    bucket: TokenBucket | None
    """None: no limit for each tenant."""

    def spend(self) -> None:
        """Count one request. Raises RateLimited."""
        if self.bucket is not None:
            self.bucket.take()


class Tenants:
    """The tenants of the key file, or the one anonymous tenant of a service without keys."""

    def __init__(self, hashes: Iterable[tuple[str, str]], *, requests_per_minute: int | None) -> None:
        """Pass names and the SHA-256 hex of their keys; without any, no key is required."""

        def tenant(log_id: str | None, cache_salt: str | None) -> Tenant:
            bucket = None if requests_per_minute is None else TokenBucket(per_minute=requests_per_minute)
            return Tenant(log_id=log_id, cache_salt=cache_salt, bucket=bucket)

        by_name: dict[str, Tenant] = {}
        self._tenants: list[tuple[bytes, Tenant]] = []
        for name, key_hash in hashes:
            # A tenant may hold several keys while one replaces the other; they share its rate and its cache.
            if name not in by_name:
                by_name[name] = tenant(_digest(f"log {name}")[:12], _digest(f"cache {name}"))
            self._tenants.append((bytes.fromhex(key_hash), by_name[name]))
        self._anonymous = None if self._tenants else tenant(None, None)

    def find(self, key: str | None) -> Tenant:
        """Return the tenant of `key`. Raises Unauthenticated.

        Every hash is compared, each in constant time, so that timing does not tell which one was close.
        """
        if self._anonymous is not None:
            return self._anonymous
        given = hashlib.sha256((key or "").encode(errors="replace")).digest()
        found = [tenant for key_hash, tenant in self._tenants if hmac.compare_digest(key_hash, given)]
        if not found:
            raise Unauthenticated("send a valid API key")
        return found[0]


def read_key_file(path: Path) -> tuple[tuple[str, str], ...]:
    """Read names and hashes from `path`; blank lines and lines that begin with # are skipped.

    Raises ConfigError when the file cannot be read, a line is something else, a hash comes twice, or there is no key.
    """
    try:
        lines = read_bounded(path, limit=_MAX_FILE_BYTES).decode().splitlines()
    except CheckpointError as error:
        raise ConfigError(f"the key file cannot be read: no regular file of at most {_MAX_FILE_BYTES} bytes") from error
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the key file cannot be read: {type(error).__name__}") from error
    found: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            # The message leaves the line out: it may be a key in the place of its hash.
            raise ConfigError(f"line {number} of the key file is not a name and the SHA-256 of a key")
        name, key_hash = match.groups()
        if any(key_hash == other for _, other in found):
            raise ConfigError(f"line {number} of the key file repeats a key")
        found.append((name, key_hash))
    if not found:
        raise ConfigError("the key file holds no key")
    return tuple(found)


def new_key(name: str) -> tuple[str, str]:
    """Make a key and its line for the key file. Raises ConfigError for a name that the file cannot hold."""
    key = _PREFIX + secrets.token_urlsafe(32)
    line = f"{name} {hashlib.sha256(key.encode()).hexdigest()}"
    if _LINE.fullmatch(line) is None:
        raise ConfigError("a name is 1 to 64 letters, digits, dots, hyphens and underscores")
    return key, line


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
