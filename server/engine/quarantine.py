"""Requests that an engine may have died of: which may run, which only alone, which never again.

When an engine dies with several requests in it, nobody knows which one it was, if any: a kernel out of memory ends
engines too. So all of them become suspects. A suspect that comes again runs alone in the new engine: if it ends, it is
cleared; if that engine dies as well, it is refused from then on. One bad request thus costs two engines, not one for
every time a client repeats it, and no request is refused for having been in bad company.

Requests are remembered by a keyed hash whose key nobody holds but this object: it ends with the process, and tells
nothing about an image or a question to anyone who has them. While no engine has died, none is made: a classification
is a hundred requests with the same long prompt.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cachetools import LRUCache

from medmoe.server.engine.base import GenerationRequest
from medmoe.server.engine.read_write_lock import ReadWriteLock
from medmoe.server.errors import Quarantined

CAPACITY = 4096
"""Suspects, and as many refused requests, that are remembered at most, 32 bytes each; the oldest are forgotten."""

Fingerprint = bytes


@dataclass(slots=True)
class _Inside:
    """What is in one engine."""

    lock: ReadWriteLock = field(default_factory=ReadWriteLock)
    requests: dict[int, GenerationRequest] = field(default_factory=dict)
    """By the object's own id."""


class Quarantine:
    """Lives as long as the process, across its engines. Lives on the event loop's thread."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._key = secrets.token_bytes(32)
        self._suspects: LRUCache[Fingerprint, None] = LRUCache(capacity)
        self._refused: LRUCache[Fingerprint, None] = LRUCache(capacity)
        self._inside = _Inside()

    @property
    def suspects(self) -> int:
        """How many requests would run alone."""
        return len(self._suspects)

    @property
    def refused(self) -> int:
        """How many requests would not run."""
        return len(self._refused)

    @asynccontextmanager
    async def admit(self, request: GenerationRequest) -> AsyncIterator[None]:
        """Be in the engine; a suspect waits until it is empty and keeps it so.

        Raises Quarantined, and EngineDeadError when the engine ended while this request waited.
        """
        if self._is_among(self._refused, request):
            raise Quarantined("the engine has died of this request")
        # That of this engine: who is slow to leave a dead one must not be counted in the next.
        inside = self._inside
        async with inside.lock.hold(alone=self._is_among(self._suspects, request)):
            inside.requests[id(request)] = request
            try:
                yield
            finally:
                del inside.requests[id(request)]

    def clear(self, request: GenerationRequest) -> None:
        """The engine has survived this request."""
        if self._is_among(self._suspects, request):
            del self._suspects[self._fingerprint(request)]

    def engine_died(self) -> None:
        """Judge what was in the engine; what comes next enters another one."""
        inside, self._inside = self._inside, _Inside()
        inside.lock.close()
        found = list(dict.fromkeys(map(self._fingerprint, inside.requests.values())))
        if len(found) == 1 and found[0] in self._suspects:
            del self._suspects[found[0]]
            where = self._refused
        else:
            where = self._suspects
        for fingerprint in found:
            where[fingerprint] = None

    def _is_among(self, remembered: LRUCache[Fingerprint, None], request: GenerationRequest) -> bool:
        return bool(remembered) and self._fingerprint(request) in remembered

    def _fingerprint(self, request: GenerationRequest) -> Fingerprint:
        # Without the seed, which the service draws anew where the client sends none. With the tenant's salt: being
        # refused must not tell one tenant what another has asked.
        asked = (
            request.cache_salt,
            request.image_id,
            request.prompt_ids,
            request.max_tokens,
            request.temperature,
            request.logprob_token_ids,
        )
        return hashlib.blake2b(repr(asked).encode(), key=self._key, digest_size=32).digest()
