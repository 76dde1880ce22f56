"""Send the API key, or token, that a file holds when the request is sent: keys are rotated, and tokens expire."""

import contextlib
from collections.abc import Generator
from pathlib import Path

import httpx

from medmoe.client.transport.address import authorization


class KeyFile(httpx.Auth):
    """Authorises each request with the key in a file, or with the last valid key while the file holds none."""

    def __init__(self, path: Path) -> None:
        """Raise ValueError when the file cannot be read or holds no key."""
        self._path = path
        try:
            self._headers = self._read()
        except OSError as error:
            # Without the path: it may be a key in the place of the file.
            raise ValueError(f"the key file cannot be read: {error.strerror}") from error

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See httpx.Auth."""
        with contextlib.suppress(OSError, ValueError):
            self._headers = self._read()
        request.headers.update(self._headers)
        yield request

    def _read(self) -> dict[str, str]:
        try:
            key = self._path.read_text().strip()
        except UnicodeError as error:
            raise ValueError(f"{self._path} is not text") from error
        if not key:
            raise ValueError(f"{self._path} holds no key")
        return authorization(key)
