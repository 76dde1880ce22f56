"""Serve the API's description, and Swagger UI over it from this service's own files.

With API keys the description needs one. The page and Swagger UI need none: they hold nothing of the deployment, and a
browser that opens an address can send no key.
"""

import warnings
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute

from medmoe.server.auth.oidc.provider_url import discovery_url
from medmoe.server.routes.assets import AssetFolder
from medmoe.server.routes.dependencies import authenticated
from medmoe.server.settings import Settings
from medmoe.server.state import State

router = APIRouter(include_in_schema=False)

_DOCUMENT = "/openapi.json"
_FOLDER = Path(__file__).parents[1] / "openapi" / "docs_page"
_SWAGGER_UI = "fastapi_swagger"
"""Package that brings Swagger UI's files."""
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")
_HEADERS = {
    # Styles are inline in Swagger UI's own elements; scripts are not.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
}


@router.get(_DOCUMENT, dependencies=[Depends(authenticated)])
async def document(request: Request) -> Response:
    """Return the OpenAPI document."""
    if not hasattr(request.app.state, "openapi_document"):
        with warnings.catch_warnings(action="ignore"):
            # HEAD has the id of its GET until `_correct` removes it.
            described: dict[str, Any] = request.app.openapi()
        _correct(described, request.app.routes)
        _describe_doors(described, State.of(request).settings)
        _name_model(described, State.of(request).active.name)
        request.app.state.openapi_document = JSONResponse(described).body
    return Response(request.app.state.openapi_document, media_type="application/json")


@router.get("/docs")
async def page(request: Request) -> Response:
    """Return the page of Swagger UI."""
    return _assets().respond(request, "index.html")


@router.get("/docs/{name}")
async def asset(request: Request, name: str) -> Response:
    """Return a file that the page loads. Raises HTTPException (404)."""
    return _assets().respond(request, name)


@cache
def _assets() -> AssetFolder:
    return AssetFolder.read(_FOLDER, Path(str(files(_SWAGGER_UI) / "resources")), headers=_HEADERS)


def _correct(described: dict[str, Any], routes: Iterable[BaseRoute]) -> None:
    """Restore nulls of examples that the framework drops, and remove HEAD and the 422 that it adds to every route."""
    for route in routes:
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        described["paths"][route.path_format].pop("head", None)
        for method in route.methods - {"HEAD"}:
            responses = described["paths"][route.path_format][method.lower()]["responses"]
            if 422 not in route.responses:
                responses.pop("422", None)
            for status, response in route.responses.items():
                for media_type, content in response.get("content", {}).items():
                    responses[str(status)]["content"][media_type] |= content
    for name in _FRAMEWORKS_OWN:
        described["components"]["schemas"].pop(name, None)


def _name_model(described: dict[str, Any], name: str) -> None:
    """Put the name of the active model into forms, whose fields Swagger UI fills in with their examples."""
    for path in described["paths"].values():
        for operation in path.values():
            form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data", {})
            field = form.get("schema", {}).get("properties", {}).get("model")
            if field is not None:
                field["examples"] = [name]


def _describe_doors(described: dict[str, Any], settings: Settings) -> None:
    """Add the identity provider and the client certificate of this deployment to the security schemes."""
    schemes = described["components"]["securitySchemes"]
    operations = [one for path in described["paths"].values() for one in path.values() if "security" in one]
    if settings.oidc_issuer is not None:
        schemes["OpenIDConnect"] = {"type": "openIdConnect", "openIdConnectUrl": discovery_url(settings.oidc_issuer)}
        for operation in operations:
            operation["security"].append({"OpenIDConnect": []})
    if settings.tls_client_ca is not None:
        schemes["MutualTLS"] = {"type": "mutualTLS"}
        for operation in operations:
            # All of one requirement are needed, and one of several.
            operation["security"] = [one | {"MutualTLS": []} for one in operation["security"]]
