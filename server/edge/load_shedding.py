"""Refuse requests before the web framework runs, in the words of the routes.

Under overload most requests are refused, and the cost of each refusal is missing for the answers. The checks have the
order of the routes: key, scope, rate, room.
"""

import contextlib
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.responses import Response

from medmoe.model.errors import MedMoEError
from medmoe.server.admission.readiness import Phase
from medmoe.server.auth.errors import UnknownSigningKey
from medmoe.server.edge.request_head import RequestHead
from medmoe.server.http.error_responses import error_response, log_failure
from medmoe.server.http.middleware import begin, finish, identification
from medmoe.server.http.security_headers import SECURITY_HEADERS
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.routes.dependencies import bearer_key
from medmoe.server.state import State


class LoadShedder:
    """Refuses requests to routes that need a slot, and requests that no route ever sees."""

    def __init__(self, state: State, *, paths: Collection[str]) -> None:
        """Pass the `paths` of the routes that need a slot; they are the routes' templates too."""
        self._state = state
        self._paths = frozenset(paths)

    @property
    def due(self) -> bool:
        """Return whether every request that came now would be refused."""
        return self._state.readiness.phase is not Phase.READY or self._state.admission.is_full

    def concerns(self, head: RequestHead) -> bool:
        """Return whether `refuse` takes it: a path that needs a slot, and a body within the limit."""
        return head.path in self._paths and head.body_size <= self._state.settings.max_body_bytes

    def refuse(self, head: RequestHead, *, send: Callable[[Response], None]) -> None:
        """Send the refusal with `send`, and publish its record. Call it only while a refusal is `due`."""
        state = self._state
        record = begin(head.headers, method="POST", sample=state.traces is not None)
        record.route = head.path
        try:
            # A token may become valid with the provider's present keys, for which this refusal does not wait.
            with contextlib.suppress(UnknownSigningKey):
                grant = record.grant = state.authenticator.find(bearer_key(head.headers))
                grant.require("ask")
                grant.tenant.spend()
            state.require_room()
        except MedMoEError as error:
            self._answer(error, record, send=send)
        else:
            raise AssertionError("there was room")

    def reject(self, error: MedMoEError, *, send: Callable[[Response], None]) -> None:
        """Send `error` with `send` to a client whose request has no readable head, and publish its record."""
        record = begin(Headers(), method="", sample=False)
        self._answer(error, record, send=send)

    def _answer(self, error: MedMoEError, record: RequestRecord, *, send: Callable[[Response], None]) -> None:
        log_failure(error, record=record)
        response = error_response(error, record=record)
        record.status = response.status_code
        response.raw_headers += (*identification(record), *SECURITY_HEADERS)
        try:
            send(response)
        finally:
            finish(record, publish=self._state.publish)
