"""Resolve the service's address and API key. The key is sent in a header and never shown."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

import httpx

KEY_VARIABLE = "MEDMOE_API_KEY"
URL_VARIABLE = "MEDMOE_URL"
LOCAL = "http://127.0.0.1:8000"


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Hold the service's base URL, which may be shown, and the headers of every request."""

    url: str
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, url: str | None, *, api_key: str | None) -> "Address":
        """Check an address, with or without a final /v1, and a key.

        `url` None reads MEDMOE_URL and falls back to http://127.0.0.1:8000; `api_key` None reads MEDMOE_API_KEY, and
        an empty key is none. Raises ValueError, which quotes neither, for an invalid address or key.
        """
        given = url if url is not None else os.environ.get(URL_VARIABLE) or LOCAL
        try:
            parsed = httpx.URL(given.strip())
        except httpx.InvalidURL as error:
            raise ValueError("the service's address cannot be read") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("the service's address must begin with http:// or https:// and name a host")
        if parsed.userinfo or parsed.query or parsed.fragment:
            raise ValueError("the service's address holds a user, a query or a fragment; a key goes into api_key")
        key = os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key
        # OpenAI's clients want the final /v1, so it is often part of what is pasted.
        base = str(parsed).rstrip("/").removesuffix("/v1")
        return cls(url=base, headers=authorization(key) if key else {})

    @property
    def is_local(self) -> bool:
        """Return whether the service is on this machine, which no proxy reaches."""
        host = httpx.URL(self.url).host
        try:
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return self.url


def authorization(key: str) -> dict[str, str]:
    """Return the header that carries `key`. Raises ValueError, which does not quote it, for an invalid one."""
    if any(not "!" <= letter <= "~" for letter in key):
        raise ValueError("the API key has characters that no key has")
    return {"Authorization": f"Bearer {key}"}
