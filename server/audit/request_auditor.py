"""Turn requests into records of the audit trail, before their answers leave and when they end."""

import secrets
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Scope

from medmoe.server.audit.keys import AuditKeys
from medmoe.server.audit.trail import AuditTrail
from medmoe.server.auth.rate_limit import TokenBucket
from medmoe.server.errors import RateLimited
from medmoe.server.observability.request_record import RequestRecord

_LISTINGS = "/v1/sources"
_CONTENT = "/content"
_CHANGING = ("POST", "DELETE")
_LISTED = ("study", "series")
_REFUSALS_PER_MINUTE = 600


class RequestAuditor:
    """Audits requests that read an image or a file's content, list a DICOMweb source, or change files and batches."""

    def __init__(self, trail: AuditTrail, keys: AuditKeys) -> None:
        self._trail = trail
        self._keys = keys
        # A caller without a key must not fill the disk with refusals.
        self._refusals = TokenBucket(per_minute=_REFUSALS_PER_MINUTE)

    async def before_answer(self, record: RequestRecord, scope: Scope, head: Message) -> None:
        """Write the record of an answer whose `head` is about to leave. Raises AuditUnavailable."""
        route = getattr(scope.get("route"), "path", record.route)
        if record.audited is not None or not _concerns(record, route):
            return
        status = head["status"]
        if Headers(raw=head["headers"]).get("content-type", "").startswith("text/event-stream"):
            # Its outcome follows in a record of its own.
            record.audited = secrets.token_hex(8)
            event = {"event": "stream", "stream": record.audited}
            await self._trail.record(event | self._fields(record, route, status))
            return
        record.audited = ""
        if not self._is_excess(record, status):
            fields = {"event": "request"} | self._fields(record, route, status)
            uids = {name: uid for name, uid in scope.get("path_params", {}).items() if name in _LISTED}
            if uids:
                fields["listed"] = {name: self._keys.uid_digest(uid) for name, uid in uids.items()}
            await self._trail.record(fields)

    def finished(self, record: RequestRecord) -> None:
        """Write the record of a request that has ended without one, and of the end of a stream."""
        status = record.status or 0
        fields = self._fields(record, record.route, status)
        if record.audited:
            self._trail.note({"event": "stream_end", "stream": record.audited} | fields)
        elif record.audited is None and _concerns(record, record.route) and not self._is_excess(record, status):
            self._trail.note({"event": "request"} | fields)

    def _is_excess(self, record: RequestRecord, status: int) -> bool:
        """Return whether to count, and not to record, a request that was refused before its image was read."""
        if record.images or status < HTTPStatus.BAD_REQUEST:
            return False
        # The first record waits for the weights; a refusal does not wait for it.
        if self._trail.identity is not None:
            with suppress(RateLimited):
                self._refusals.take()
                return False
        self._trail.count_unrecorded(record.error_code or str(status))
        return True

    def _fields(self, record: RequestRecord, route: str, status: int) -> dict[str, Any]:
        weights = record.weights_sha256 or (self._trail.identity or {}).get("weights_sha256")
        return {
            **({} if record.batch is None else {"batch": record.batch}),
            "request_id": record.request_id,
            "subject": record.tenant.log_id if record.tenant else None,
            "method": record.method,
            "route": route,
            "status": status,
            "error": record.error_code,
            "images": record.images,
            "weights_sha256": weights,
            "calibrated": record.calibrated,
            "abstained": record.abstained,
            "duration_seconds": round(record.elapsed(), 6),
        }


def _concerns(record: RequestRecord, route: str) -> bool:
    changes = record.method in _CHANGING and route.startswith("/v1/")
    return changes or route.startswith(_LISTINGS) or route.endswith(_CONTENT)
