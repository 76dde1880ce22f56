"""Turning a question away before any of the machinery runs that would answer it.

Apart from the routes, which refuse as well and say the same: under overload most requests are refused, and what each
of them costs is missing for the answers. The order of the questions is theirs: who is it, not again so soon, is there
room.
"""

from collections.abc import Callable, Collection

from starlette.responses import Response

from medmoe.model.errors import MedMoEError
from medmoe.server.admission.readiness import Phase
from medmoe.server.edge.request_head import RequestHead
from medmoe.server.http.error_responses import error_response, log_failure
from medmoe.server.http.middleware import begin, finish, identification
from medmoe.server.http.security_headers import ON_EVERY_REFUSAL
from medmoe.server.routes.dependencies import bearer_key
from medmoe.server.state import State


class LoadShedder:
    """For requests to routes that need a place inside."""

    def __init__(self, state: State, *, paths: Collection[str]) -> None:
        """`paths` of those routes, which are their templates too."""
        self._state = state
        self._paths = frozenset(paths)

    @property
    def due(self) -> bool:
        """Whether a request that came now would be refused, whoever sent it."""
        return self._state.readiness.phase is not Phase.READY or self._state.admission.is_full

    def concerns(self, head: RequestHead) -> bool:
        """Whether `refuse` may have it: one of those routes, and a body of a length that is read at all."""
        return head.path in self._paths and head.body_size <= self._state.settings.max_body_bytes

    def refuse(self, head: RequestHead, *, send: Callable[[Response], None]) -> None:
        """Answer, by `send`, and publish the record as any other. Only while a refusal is `due`."""
        state = self._state
        record = begin(head.headers, method="POST", sample=state.traces is not None)
        record.route = head.path
        try:
            tenant = record.tenant = state.tenants.find(bearer_key(head.headers))
            tenant.spend()
            state.require_room()
        except MedMoEError as error:
            log_failure(error, record=record)
            response = error_response(error, record=record)
        else:
            raise AssertionError("there was room")
        record.status = response.status_code
        identified = [(name.lower().encode(), value.encode()) for name, value in identification(record).items()]
        response.raw_headers += (*identified, *ON_EVERY_REFUSAL)
        try:
            send(response)
        finally:
            finish(record, publish=state.publish)
