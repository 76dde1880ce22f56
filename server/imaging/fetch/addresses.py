"""Resolve host names, tell public addresses from others, and connect to resolved addresses only."""

import socket
from collections.abc import Iterable, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpcore

from medmoe.server.dicomweb.connection import ClosingNetwork
from medmoe.server.tasks import DaemonThreads

HTTPS_PORT = 443

Address = IPv4Address | IPv6Address
Endpoint = tuple[Address, int]
"""Address and port."""

# Networks that `is_global` accepts in some Python version, and that no image server can be in.
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
    """Return whether `address` is global and unicast, and leads to no other that is not.

    IPv4-mapped addresses are judged as IPv4, and so are those behind NAT64's well-known prefix.
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
    """Resolves names as the system does, in threads of its own.

    A silent name server must not block a shared pool, nor the end of the process.
    """

    def __init__(self, *, threads: int) -> None:
        self._threads = DaemonThreads("resolver", count=threads)

    async def __call__(self, host: str) -> tuple[Endpoint, ...]:
        """Return every address of `host`, resolved once. Raises OSError."""
        return await self._threads.do(partial(_ask, host))


def _ask(host: str) -> tuple[Endpoint, ...]:
    found = socket.getaddrinfo(host, HTTPS_PORT, type=socket.SOCK_STREAM)
    return tuple((ip_address(address[0]), int(address[1])) for *_, address in found)


class PinnedNetwork(ClosingNetwork):
    """Connects to given endpoints, whatever host name httpcore asks for; TLS and the request still use the name.

    The checked addresses are thus the connected ones (no DNS rebinding).
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first endpoint that answers, each within `timeout`. Raises ConnectError, ConnectTimeout."""
        failure: Exception = httpcore.ConnectError("no address")
        for address, own_port in self._endpoints:
            try:
                return await super().connect_tcp(str(address), own_port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure
