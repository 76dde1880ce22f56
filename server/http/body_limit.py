"""Limit request bodies: the length of each, how many are read at once, how slowly, and their memory in all.

Admission counts a request only once its body is read, so these limits keep slow senders from filling the service.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medmoe.server.auth.tenants import Tenant
from medmoe.server.errors import BodyTooLarge, MalformedBody, Overloaded, RequestTimeout
from medmoe.server.observability.request_record import RequestRecord

_RETRY = 1
"""Seconds. How long the current senders will take is unknown."""
_FLOOR = 1024.0
"""Bytes a second that a body must bring on average."""
_PATIENCE = 10.0
"""Seconds without a byte that are allowed after any number of bytes."""
_GRACE = 1.0
"""Seconds in which a new body is never given up for another."""


@dataclass(kw_only=True, eq=False)
class _Upload:
    """A body that is being read; times are those of the event loop."""

    tenant: Tenant | None
    begun: float
    patience: float
    received: int = 0
    until: float = field(init=False)
    """Time by which the next bytes must come."""
    waiting: asyncio.Timeout | None = None
    is_complete: bool = False

    def __post_init__(self) -> None:
        self.until = self.begun + self.patience

    def add(self, size: int, *, now: float) -> None:
        self.received += size
        self.until = min(now + self.patience, self.until + size / _FLOOR)

    def rate(self, now: float) -> float:
        """Return bytes a second; infinity within the grace period."""
        age = now - self.begun
        return self.received / age if age > _GRACE else float("inf")

    def give_up(self, *, now: float) -> None:
        self.until = now
        if self.waiting is not None:
            # A timeout that has expired already ends the upload as well.
            with suppress(RuntimeError):
                self.waiting.reschedule(now)


class BodyLimit:
    """ASGI middleware that limits bodies.

    Raises BodyTooLarge past `max_bytes`, MalformedBody for a Content-Length that is no number, RequestTimeout for a
    body that comes too slowly, Overloaded while `max_at_once` bodies are being read or `max_memory` bytes are held.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        max_at_once: int,
        max_memory: int,
        larger: Mapping[str, tuple[int, str]] = MappingProxyType({}),
        patience: float = _PATIENCE,
    ) -> None:
        """`larger` gives the limit of a path's own, and the setting that it is; `patience` is in seconds."""
        self.app = app
        self.max_bytes = max_bytes
        self.max_at_once = max_at_once
        self.max_memory = max_memory
        self._larger = dict(larger)
        self._patience = patience
        self._uploads: dict[_Upload, None] = {}
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = self._declared(scope)
        upload: _Upload | None = None
        held = 0

        async def counted() -> Message:
            nonlocal upload, held
            loop = asyncio.get_running_loop()
            if upload is None:
                self._require_memory(declared)
                upload = self._admit(RequestRecord.of(scope).tenant, now=loop.time())
            if upload.is_complete:
                return await receive()
            message = await _in_time(receive, upload)
            size = len(message.get("body", b""))
            upload.add(size, now=loop.time())
            self._check(scope, upload.received)
            self._require_memory(size)
            self._held += size
            held += size
            if not message.get("more_body", False):
                upload.is_complete = True
                self._uploads.pop(upload, None)
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self._held -= held
            if upload is not None:
                self._uploads.pop(upload, None)

    def _declared(self, scope: Scope) -> int:
        """Return the Content-Length, 0 without one. Raises BodyTooLarge, MalformedBody."""
        declared = Headers(scope=scope).get("content-length")
        if declared is None:
            return 0
        if not (declared.isascii() and declared.isdigit() and len(declared) < 20):
            raise MalformedBody("Content-Length is not a number")
        self._check(scope, int(declared))
        return int(declared)

    def _check(self, scope: Scope, size: int) -> None:
        most, setting = self._larger.get(scope["path"], (self.max_bytes, "MEDMOE_MAX_BODY_BYTES"))
        if size > most:
            raise BodyTooLarge.over(most, setting=setting)

    def _require_memory(self, size: int) -> None:
        if self._held + size > self.max_memory:
            raise Overloaded(retry_after=_RETRY)

    def _admit(self, tenant: Tenant | None, *, now: float) -> _Upload:
        """Add an upload; where all places are taken, in the place of a slow one. Raises Overloaded."""
        if len(self._uploads) >= self.max_at_once:
            slow = self._slowest(tenant, now=now)
            if slow is None:
                raise Overloaded(retry_after=_RETRY)
            del self._uploads[slow]
            slow.give_up(now=now)
        upload = _Upload(tenant=tenant, begun=now, patience=self._patience)
        self._uploads[upload] = None
        return upload

    def _slowest(self, tenant: Tenant | None, *, now: float) -> _Upload | None:
        """Return the slowest upload of the tenant with the most; one of the same tenant only below the floor."""
        counts = Counter(id(upload.tenant) for upload in self._uploads)
        largest, count = counts.most_common(1)[0]
        is_own = count <= counts[id(tenant)]
        owner = id(tenant) if is_own else largest
        slow = min((one for one in self._uploads if id(one.tenant) == owner), key=lambda one: one.rate(now))
        return slow if slow.rate(now) < (_FLOOR if is_own else float("inf")) else None


async def _in_time(receive: Receive, upload: _Upload) -> Message:
    try:
        async with asyncio.timeout_at(upload.until) as upload.waiting:
            return await receive()
    except TimeoutError:
        raise RequestTimeout from None
    finally:
        upload.waiting = None
