"""Add security headers to every response, errors included."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # No other site may frame the documentation or read a response.
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    # API responses load nothing.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Names and values as ASGI has them; a page sets some of its own."""


class ResponseHeaders:
    """ASGI middleware that sets the headers. It must be outside RequestMiddleware, which responds itself too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                added = (header for header in SECURITY_HEADERS if header[0] not in own)
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)
