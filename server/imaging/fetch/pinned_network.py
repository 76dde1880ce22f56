"""A network in which every name has the addresses that were looked at before: what is checked is what is connected to.

Apart from the fetching because it is httpcore's seam, the one place where a host name would be resolved again.
"""

from collections.abc import Iterable, Sequence

import httpcore

from medmoe.server.imaging.fetch.addresses import Endpoint


class PinnedNetwork(httpcore.AsyncNetworkBackend):
    """For one connection, which TLS and the request still make in the host's name."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._network = httpcore.AnyIOBackend()
        self._opened: httpcore.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """The first endpoint that answers, each within `timeout`. Raises httpcore's ConnectError, ConnectTimeout."""
        failure: Exception = httpcore.ConnectError("no address")
        for address, own_port in self._endpoints:
            try:
                self._opened = await self._network.connect_tcp(
                    str(address), own_port, timeout, local_address, socket_options
                )
                return self._opened
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def aclose(self) -> None:
        """Close what was opened: httpcore itself forgets a connection that is cancelled during its TLS handshake."""
        if self._opened is not None:
            await self._opened.aclose()
