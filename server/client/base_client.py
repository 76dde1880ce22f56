"""Define the base of both clients: the service's address, the time limit and the retries."""

from pathlib import Path

import httpx

from medmoe.client.transport.address import Address
from medmoe.client.transport.key_file import KeyFile
from medmoe.client.transport.retry import Attempts, Retry

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)
"""Connections are unlimited, because callers choose their own concurrency."""
_LONGEST_SECONDS = 1e9
"""Thirty years, for what takes infinity for no limit: clocks of the system end after three hundred."""


class BaseClient:
    """Base of Client and AsyncClient."""

    def __init__(self, url: str | None, *, api_key: str | Path | None, timeout: float, retry: Retry) -> None:
        """Raise ValueError for an invalid address, key or time limit."""
        if not timeout > 0:
            raise ValueError("the timeout is a number of seconds above 0")
        self._auth = KeyFile(api_key) if isinstance(api_key, Path) else None
        self._address = Address.of(url, api_key="" if isinstance(api_key, Path) else api_key)
        self._timeout = min(timeout, _LONGEST_SECONDS)
        self._retry = retry

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._address)!r})"

    def _attempts(self) -> Attempts:
        return Attempts(self._retry, seconds=self._timeout)
