"""Refuse requests that a foreign web page makes a browser send."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from medmoe.server.errors import ForbiddenOrigin
from medmoe.server.loopback import is_loopback
from medmoe.server.settings import Settings


class OriginCheck:
    """ASGI middleware that raises ForbiddenOrigin for requests of foreign pages, and for foreign Host names.

    The names are checked where nothing else keeps others out: on loopback without API keys. A page whose own name
    comes to resolve to 127.0.0.1 (DNS rebinding) could read every response there.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app = app
        is_open = not settings.authenticates and not settings.insecure and is_loopback(settings.host)
        self._hosts = {"localhost", "127.0.0.1", "::1", settings.host.lower()} if is_open else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if _is_of_foreign_page(scope["method"], headers):
                raise ForbiddenOrigin
            host = headers.get("host")
            if self._hosts is not None and host is not None and _name(host) not in self._hosts:
                raise ForbiddenOrigin(
                    "without API keys this service answers on this machine only as localhost; set MEDMOE_API_KEYS, or "
                    "MEDMOE_INSECURE=true where something in front of the service authenticates"
                )
        await self.app(scope, receive, send)


def _is_of_foreign_page(method: str, headers: Headers) -> bool:
    """Return whether a page of another origin sent the request, unless it is a link to this service.

    Browsers send no Sec-Fetch-Site to an address without TLS in the network, Safari also to none on this machine.
    There Origin tells; it is `null` where a page hides its own.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        # Another port of this machine, or another host of the hospital, is same-site.
        return site in ("cross-site", "same-site") and not is_link
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()


def _name(host: str) -> str:
    """Return the name or address in a Host header, without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
