"""Where a host name leads, and whether a service may be sent there.

Apart from the fetching because it is a table of networks, and because tests bring their own name server.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

HTTPS_PORT = 443

Address = IPv4Address | IPv6Address
Endpoint = tuple[Address, int]
"""Address and port."""

# What `is_global` lets pass in one Python or another, and no server of pictures can have.
_NOT_PUBLIC_V4 = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays of 6to4
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_UNICAST_V6 = ip_network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    ip_network(text)
    for text in (
        "2001::/23",  # protocol assignments; Teredo, whose IPv4 address is hidden
        "2002::/16",  # 6to4: leads to any IPv4 address
        "3fff::/20",  # documentation
    )
)
_NAT64 = ip_network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether `address` is global and unicast, and no other way to one that is not.

    Mapped IPv4 addresses and those behind NAT64's common prefix, which networks without IPv4 need, are judged as IPv4.
    """
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        inner = address.ipv4_mapped or (IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None)
        if inner is None:
            unicast = address in _UNICAST_V6 and not any(address in network for network in _NOT_PUBLIC_V6)
            return unicast and address.is_global
        address = inner
    return address.is_global and not any(address in network for network in _NOT_PUBLIC_V4)


class SystemResolver:
    """The system's own, on threads of its own: a name server that is silent must not hold up what shares a pool."""

    def __init__(self, *, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolver")

    async def __call__(self, host: str) -> tuple[Endpoint, ...]:
        """Every address of `host`, asked for once. Raises OSError."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _ask, host)


def _ask(host: str) -> tuple[Endpoint, ...]:
    found = socket.getaddrinfo(host, HTTPS_PORT, type=socket.SOCK_STREAM)
    return tuple((ip_address(address[0]), int(address[1])) for *_, address in found)
