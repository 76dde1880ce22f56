"""Parse image URLs by one strict grammar, and check their host against those that the deployment names.

A URL is parsed once, here, and never put together again: two parsers can disagree about the host of one URL.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

import idna

from medmoe.server.errors import ImageURLNotAllowed

_MAX_CHARS = 4096
_MAX_HOST_CHARS = 253
_SCHEME = re.compile(r"(?!data:)[a-z][a-z0-9+.-]{0,63}:", re.ASCII | re.IGNORECASE)
_HTTPS = re.compile(
    r"https://(?P<host>[^\s/?#@:%\\\[\]]+)(?::443)?(?P<target>/(?:[\w.~!$&'()*+,;=:@/?-]|%[0-9a-f]{2})*)?",
    re.ASCII | re.IGNORECASE,
)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""The last part of an IPv4 address in every spelling that a resolver accepts; no domain name ends like it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AllowedURL:
    """An https URL on port 443 whose host the deployment names."""

    host: str
    """In the spelling of the settings."""
    target: str
    """Path and query as they were sent."""


def is_url(text: str) -> bool:
    """Return whether `text` is a URL and not base64, which has no colon. No more than its beginning is looked at."""
    return _SCHEME.match(text) is not None


def allowed_url(text: str, *, hosts: Collection[str]) -> AllowedURL:
    """Parse `text` and check it against `hosts`. Raises ImageURLNotAllowed."""
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
        raise ImageURLNotAllowed("images are not fetched from this host (MEDMOE_IMAGE_URL_HOSTS)")
    return AllowedURL(host=host, target=match["target"] or "/")


def host_name(text: str) -> str:
    """Return the normal form of a host name: IDNA, lower case, without a dot at the end. Raises ValueError.

    An IP address is refused, because a list of names cannot tell who owns it.
    """
    if len(text) > _MAX_HOST_CHARS:
        raise ValueError("the host name is too long")
    name = (text if text.isascii() else idna.encode(text, uts46=True).decode()).lower().removesuffix(".")
    if len(name) > _MAX_HOST_CHARS or not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise ValueError("not a host name")
    return name
