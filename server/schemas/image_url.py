"""Which URLs of pictures may be fetched: one strict grammar, and hosts that the deployment names.

Apart from the fetching so that settings and requests read host names by one rule. A URL is taken apart here, once, and
never put together again: where two parsers read one text, they can be made to disagree about its host.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

import idna

from medmoe.server.errors import ImageURLNotAllowed

_MAX_CHARS = 4096
_MAX_HOST_CHARS = 253
_SCHEME = re.compile(r"(?!data:)[a-z][a-z0-9+.-]*:", re.ASCII | re.IGNORECASE)
_HTTPS = re.compile(
    r"https://(?P<host>[^\s/?#@:%\\\[\]]+)(?::443)?(?P<target>/(?:[\w.~!$&'()*+,;=:@/?-]|%[0-9a-f]{2})*)?",
    re.ASCII | re.IGNORECASE,
)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""What the last part of an IPv4 address can look like, in every spelling that some resolver takes; no domain does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AllowedURL:
    """An https URL on port 443 whose host the deployment names."""

    host: str
    """As the settings have it."""
    target: str
    """Path and query, as they were sent."""


def is_url(text: str) -> bool:
    """Whether `text` says where a picture is instead of holding it; base64 has no colon."""
    return _SCHEME.match(text) is not None


def allowed_url(text: str, *, hosts: Collection[str]) -> AllowedURL:
    """Raises ImageURLNotAllowed."""
    match = _HTTPS.fullmatch(text) if len(text) <= _MAX_CHARS else None
    if match is None:
        raise ImageURLNotAllowed(
            f"an image URL must be https://HOST/PATH of at most {_MAX_CHARS} characters, percent-encoded, on port 443, "
            "without user name, password and fragment"
        )
    try:
        host = host_name(match["host"])
    except ValueError:
        host = ""
    if host not in hosts:
        raise ImageURLNotAllowed("pictures are not fetched from this host (MEDMOE_IMAGE_URL_HOSTS)")
    return AllowedURL(host=host, target=match["target"] or "/")


def host_name(text: str) -> str:
    """`text` as name servers and certificates have it: IDNA, lower case, no dot at the end. Raises ValueError.

    An IP address is none: whom it belongs to, no certificate and no list of names can say.
    """
    if len(text) > _MAX_HOST_CHARS:
        raise ValueError("the host name is too long")
    name = (text if text.isascii() else idna.encode(text, uts46=True).decode()).lower().removesuffix(".")
    if len(name) > _MAX_HOST_CHARS or not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise ValueError("not a host name")
    return name
