"""Check the addresses of an identity provider."""

from urllib.parse import urlsplit

from medmoe.server.loopback import is_loopback


def is_provider_url(url: str) -> bool:
    """Return whether `url` is https, or http of this machine, with a host and without user and fragment."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    return secure and bool(parts.hostname) and "@" not in parts.netloc and not parts.fragment


def discovery_url(issuer: str) -> str:
    """Return the address of an issuer's discovery document (OpenID Connect Discovery 1.0)."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"
