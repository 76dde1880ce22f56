"""Find the grant of an API key, and follow changes of the key file."""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

from medmoe.model.errors import ConfigError
from medmoe.server.auth.key_file import KeyEntry, parse_key_file, read_key_file
from medmoe.server.auth.tenants import Grant, Tenant
from medmoe.server.tasks import DaemonThreads

log = logging.getLogger("medmoe.keys")

_SECONDS = 1.0
"""Time between two looks at the key file."""


class ApiKeys:
    """The keys of the key file."""

    def __init__(self, entries: Iterable[KeyEntry], *, requests_per_minute: int | None = None) -> None:
        """Pass the rate limit of names without one of their own."""
        self._requests_per_minute = requests_per_minute
        self._tenants: dict[str, Tenant] = {}
        self._grants: dict[bytes, Grant] = {}
        self.replace(entries)

    def find(self, key: str) -> Grant | None:
        """Return the grant of `key`, None for an unknown one.

        Every hash is compared, each in constant time, so that timing does not tell which one was close.
        """
        given = hashlib.sha256(key.encode(errors="replace")).digest()
        found = [grant for key_hash, grant in self._grants.items() if hmac.compare_digest(key_hash, given)]
        return found[0] if found else None

    def find_id(self, key_id: str) -> Grant | None:
        """Return the grant of the key with this `key_id`, None when there is none any more."""
        return next((grant for grant in self._grants.values() if grant.key_id == key_id), None)

    def replace(self, entries: Iterable[KeyEntry]) -> int:
        """Take the entries of a changed file, and return how many keys that revokes.

        A name that stays keeps its tenant and what is left of its rate; changed scopes hold from the next request on.
        """
        tenants: dict[str, Tenant] = {}
        grants: dict[bytes, Grant] = {}
        for entry in entries:
            # A tenant may hold several keys while one replaces the other; they share its rate and its cache.
            if entry.name not in tenants:
                tenants[entry.name] = self._tenants.get(entry.name) or Tenant.of(entry.name)
                tenants[entry.name].limit(entry.requests_per_minute or self._requests_per_minute)
            tenant = tenants[entry.name]
            kept = self._grants.get(entry.key_hash)
            if kept is None or kept.tenant is not tenant:
                kept = Grant(tenant=tenant, key_id=_key_id(entry.key_hash))
            grant = grants[entry.key_hash] = kept
            grant.scopes = entry.scopes
        revoked = [grant for key_hash, grant in self._grants.items() if grants.get(key_hash) is not grant]
        for grant in revoked:
            grant.revoked = True
        self._tenants, self._grants = tenants, grants
        return len(revoked)


def _key_id(key_hash: bytes) -> str:
    return hashlib.sha256(b"key id " + key_hash).hexdigest()


class WatchedKeys(ApiKeys):
    """The keys of a file, which is read again every second; a damaged file changes nothing."""

    def __init__(self, path: Path, content: bytes, *, requests_per_minute: int | None) -> None:
        """Raise ConfigError for a content that is no key file."""
        super().__init__(parse_key_file(content), requests_per_minute=requests_per_minute)
        self._path = path
        self._seen: bytes | str = content
        """The content, or why there is none, at the last look."""
        self.is_stale = False
        """Whether the file has become one that cannot be used, so that the keys read before it are still valid."""

    @classmethod
    def read(cls, path: Path, *, requests_per_minute: int | None) -> Self:
        """Read the file at `path`. Raises ConfigError."""
        return cls(path, read_key_file(path), requests_per_minute=requests_per_minute)

    async def watch(self, on_revoked: Callable[[], None]) -> None:
        """Follow the file for ever; call `on_revoked` after a change that revokes keys."""
        # A disk that hangs must not keep the process from ending.
        thread = DaemonThreads("keys")
        try:
            while True:
                await asyncio.sleep(_SECONDS)
                content = await thread.look(
                    self._content, on_hang=lambda: self._take("it cannot be read: its disk hangs")
                )
                if self._take(content):
                    on_revoked()
        finally:
            thread.end()

    def _content(self) -> bytes | str:
        """Return the content of the file, or why there is none. Blocks."""
        try:
            # The whole content: a time stamp may be as coarse as two changes are close.
            return read_key_file(self._path)
        except ConfigError as error:
            return str(error)
        except Exception as error:
            # Nobody else would look again, and revoked keys would stay valid.
            return f"it cannot be read: {type(error).__name__}"

    def _take(self, content: bytes | str) -> int:
        """Take what has changed in the file; return the number of keys that are revoked."""
        if content == self._seen:
            return 0
        self._seen = content
        try:
            if isinstance(content, str):
                raise ConfigError(content)
            entries = parse_key_file(content)
        except ConfigError as error:
            self.is_stale = True
            log.error(
                "the changed key file cannot be used, and the keys read before stay valid",
                extra={"fields": {"reason": str(error)}},
            )
            return 0
        revoked = self.replace(entries)
        self.is_stale = False
        log.info("key file read", extra={"fields": {"keys": len(entries), "revoked": revoked}})
        return revoked
