"""Refuse requests that a foreign web page makes a browser send."""

from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from medmoe.server.errors import ForbiddenOrigin
from medmoe.server.loopback import is_loopback
from medmoe.server.settings import Settings

_NOT_LOCAL = (
    "without API keys this service answers on this machine only as localhost; set MEDMOE_API_KEYS, or "
    "MEDMOE_INSECURE=true where something in front of the service authenticates"
)
_NOT_ALLOWED = "this service is not called by this name (MEDMOE_ALLOWED_HOSTS)"


class OriginCheck:
    """ASGI middleware that raises ForbiddenOrigin for requests of foreign pages, and for foreign Host names.

    The names are checked on loopback without API keys, where nothing else keeps others out, and where the deployment
    lists its own. A page whose name comes to resolve to the service (DNS rebinding) could read every response there.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app = app
        is_open = not settings.authenticates and not settings.insecure and is_loopback(settings.host)
        local = {"localhost", "127.0.0.1", "::1", settings.host.lower()} if is_open else frozenset[str]()
        self._hosts = settings.allowed_hosts | local
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if _is_of_foreign_page(scope["method"], headers):
                raise ForbiddenOrigin
            host = headers.get("host")
            if host is not None and not self._is_called(_name(host)):
                raise ForbiddenOrigin(_NOT_LOCAL if self._is_open else _NOT_ALLOWED)
        await self.app(scope, receive, send)

    def _is_called(self, name: str) -> bool:
        """Return whether clients may call the service by `name`; no page can have an address for its name."""
        return not self._hosts or name in self._hosts or (not self._is_open and _is_address(name))


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


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
