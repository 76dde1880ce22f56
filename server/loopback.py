"""Tell this machine's own addresses from those of the network."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        # What a name resolves to can change after it was asked.
        return host == "localhost"
