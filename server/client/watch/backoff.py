"""Decide which failures pass by themselves, and when a failed study or image is tried again."""

import time
from collections import Counter
from collections.abc import Callable

from medmoe.client.errors import (
    BadRequest,
    ClientError,
    ConnectionFailed,
    Overloaded,
    ServiceError,
    ServiceFailed,
    ServiceTimeout,
    ServiceUnavailable,
    Timeout,
)

PASSING = (ConnectionFailed, Overloaded, ServiceUnavailable, ServiceFailed, ServiceTimeout, Timeout)
"""Errors that may be gone in a later round."""
WAITING = "waiting"
"""Returned instead of an error code for an attempt that is not made yet."""
_SOURCE_CODES = frozenset(
    {
        "invalid_source_answer",
        "source_failed",
        "source_refused",
        "source_timeout",
        "source_unavailable",
        "store_failed",
        "wrong_instance",
    }
)
_MOST_IN_A_ROW = 3
_MOST_DOUBLINGS = 6


def is_of_source(error: ClientError) -> bool:
    """Return whether a source failed, and not the service."""
    return isinstance(error, ServiceError) and error.code in _SOURCE_CODES


class Backoff:
    """Try studies and images, and let those that failed wait while others are tried."""

    def __init__(self, *, interval: float) -> None:
        """A failed one waits `interval` seconds, and twice as long after each further failure."""
        self._interval = interval
        self._failures: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._in_a_row: list[ClientError] = []

    def restart(self) -> None:
        """Forget the failures in a row."""
        self._in_a_row.clear()

    def require_no_outage(self) -> None:
        """Raise the last of three failures in a row, which are an outage and not a matter of one image."""
        if self._is_outage():
            raise self._in_a_row[-1]

    def attempt(self, key: str, action: Callable[[], None]) -> str | None:
        """Run `action`, and return None, or the error code of a failure; WAITING when it is not run.

        Raises an error that concerns the whole service, or every image of a rule.
        """
        if self._is_outage() or time.monotonic() < self._not_before.get(key, 0):
            return WAITING
        try:
            action()
        except (*PASSING, BadRequest) as error:
            code = error.code if isinstance(error, ServiceError) else "timeout"
            if isinstance(error, BadRequest) and code != "instance_not_found":
                raise
            if isinstance(error, ConnectionFailed | Overloaded):
                raise
            if isinstance(error, ServiceUnavailable) and not is_of_source(error):
                raise
            # What a source lists and does not have is no outage, however many of it there are.
            if not isinstance(error, BadRequest):
                self._in_a_row.append(error)
            pause = self._interval * 2 ** min(self._failures[key], _MOST_DOUBLINGS)
            self._not_before[key] = time.monotonic() + pause
            self._failures[key] += 1
            return code
        self._in_a_row.clear()
        self._failures.pop(key, None)
        self._not_before.pop(key, None)
        return None

    def _is_outage(self) -> bool:
        return len(self._in_a_row) >= _MOST_IN_A_ROW
