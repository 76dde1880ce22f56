"""Add security headers to every response, errors included."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # No other site may frame the documentation or read a response.
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OF_ANSWERS = {
    "Cache-Control": "no-store",
    # API responses load nothing.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Defaults; a page sets its own."""
ON_EVERY_REFUSAL = tuple((name.lower().encode(), value.encode()) for name, value in (_HEADERS | _OF_ANSWERS).items())
"""All headers, for responses that bypass the middleware."""


class ResponseHeaders:
    """ASGI middleware that sets the headers. It must be outside RequestMiddleware, which responds itself too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                for name, value in _OF_ANSWERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)
