"""Check the addresses of an identity provider."""

from urllib.parse import urlsplit

LOCAL = ("localhost", "127.0.0.1", "::1")
"""Hosts of this machine."""


def is_provider_url(url: str) -> bool:
    """Return whether `url` is https, or http of this machine, with a host and without user and fragment."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL)
    return secure and bool(parts.hostname) and "@" not in parts.netloc and not parts.fragment
