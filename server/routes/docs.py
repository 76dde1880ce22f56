"""GET /openapi.json and /docs, for authenticated callers.

Swagger UI comes from a public CDN. The page's policy allows its script to connect to this service only, because it sees
the images that people try out.
"""

from collections.abc import Iterable
from inspect import signature
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import BaseRoute

from medmoe.server.routes.dependencies import authenticated

router = APIRouter(include_in_schema=False, dependencies=[Depends(authenticated)])

_DOCUMENT = "/openapi.json"
_SCRIPT = urlsplit(signature(get_swagger_ui_html).parameters["swagger_js_url"].default)
_CDN = f"{_SCRIPT.scheme}://{_SCRIPT.netloc}"
"""The CDN that FastAPI uses."""
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")
_POLICY = (
    f"default-src 'none'; script-src {_CDN} 'unsafe-inline'; style-src {_CDN} 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get(_DOCUMENT)
async def document(request: Request) -> JSONResponse:
    """Return the OpenAPI document."""
    described: dict[str, Any] = request.app.openapi()
    _correct(described, request.app.routes)
    return JSONResponse(described)


@router.get("/docs")
async def page(request: Request) -> HTMLResponse:
    """Return Swagger UI for the document."""
    found = get_swagger_ui_html(openapi_url=_DOCUMENT, title=request.app.title, swagger_favicon_url="data:,")
    found.headers["Content-Security-Policy"] = _POLICY
    return found


def _correct(described: dict[str, Any], routes: Iterable[BaseRoute]) -> None:
    """Restore nulls of examples that the framework drops, and remove the 422 that it adds to routes without one."""
    for route in routes:
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        for method in route.methods:
            responses = described["paths"][route.path_format][method.lower()]["responses"]
            if 422 not in route.responses:
                responses.pop("422", None)
            for status, response in route.responses.items():
                for media_type, content in response.get("content", {}).items():
                    responses[str(status)]["content"][media_type] |= content
    for name in _FRAMEWORKS_OWN:
        described["components"]["schemas"].pop(name, None)
