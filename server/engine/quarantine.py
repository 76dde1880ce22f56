"""Quarantine requests that an engine may have died of.

When an engine dies, all requests in it become suspects, because its death does not tell which one caused it. A suspect
that comes again runs alone: if it ends, it is cleared; if the engine dies again, it is refused from then on. One bad
request thus costs two engines, and no request is refused for running beside a bad one.

Requests are remembered by a hash whose key ends with the process, so it tells nothing about an image or a question. No
hash is made before an engine has died: a classification is a hundred requests with the same long prompt.
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
    """Requests in one engine."""

    lock: ReadWriteLock = field(default_factory=ReadWriteLock)
    requests: dict[int, GenerationRequest] = field(default_factory=dict)
    """Requests by `id` of their object."""


class Quarantine:
    """Remember suspects and refused requests across all engines of a process. Use it on the event loop's thread."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._key = secrets.token_bytes(32)
        self._suspects: LRUCache[Fingerprint, None] = LRUCache(capacity)
        self._refused: LRUCache[Fingerprint, None] = LRUCache(capacity)
        self._inside = _Inside()

    @property
    def suspects(self) -> int:
        """Return the number of requests that would run alone."""
        return len(self._suspects)

    @property
    def refused(self) -> int:
        """Return the number of requests that would be refused."""
        return len(self._refused)

    @asynccontextmanager
    async def admit(self, request: GenerationRequest) -> AsyncIterator[None]:
        """Enter the engine; a suspect waits until the engine is empty and keeps others out.

        Raises Quarantined, and EngineDeadError when the engine ended while this request waited.
        """
        if self._is_among(self._refused, request):
            raise Quarantined("the engine has died of this request")
        # A request that is slow to leave a dead engine must not count in the next one.
        inside = self._inside
        await inside.lock.acquire(alone=self._is_among(self._suspects, request))
        inside.requests[id(request)] = request
        try:
            yield
        finally:
            del inside.requests[id(request)]
            inside.lock.release()

    def clear(self, request: GenerationRequest) -> None:
        """Forget that `request` is a suspect, because the engine has survived it."""
        if self._is_among(self._suspects, request):
            del self._suspects[self._fingerprint(request)]

    def engine_died(self) -> None:
        """Make the requests in the engine suspects, or refuse the only one if it was a suspect already."""
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
            request.stop,
            request.top_logprobs,
            request.branches,
        )
        return hashlib.blake2b(repr(asked).encode(), key=self._key, digest_size=32).digest()
