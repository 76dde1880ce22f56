"""Where the service is and with which key it is asked; the key is in the header and in nothing that is shown."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

KEY_VARIABLE = "MEDMOE_API_KEY"
LOCAL = "http://127.0.0.1:8000"


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    url: str
    """As it may be shown."""
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, url: str, *, api_key: str | None) -> "Address":
        """`api_key` None: what MEDMOE_API_KEY holds; an empty one: none.

        Raises ValueError, without quoting either, for what is no plain http(s) address or no possible key.
        """
        try:
            parsed = httpx.URL(url.strip())
        except httpx.InvalidURL as error:
            raise ValueError("the service's address cannot be read") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("the service's address must begin with http:// or https:// and name a host")
        if parsed.userinfo or parsed.query or parsed.fragment:
            raise ValueError("the service's address holds a user, a query or a fragment; a key goes into api_key")
        key = os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key
        if any(not "!" <= letter <= "~" for letter in key):
            raise ValueError("the API key has characters that no key has")
        return cls(url=str(parsed).rstrip("/"), headers={"Authorization": f"Bearer {key}"} if key else {})

    def __str__(self) -> str:
        return self.url
