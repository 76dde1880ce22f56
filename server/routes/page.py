"""Serve the page at `/`, on which a person chooses an image, asks, and sees the API's answer.

Its files need no key and hold nothing of the deployment. The page asks for the key that the API requires.
"""

from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from medmoe.server.routes.assets import AssetFolder

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parents[1] / "page"
_HEADERS = {
    # The page sees images of patients: it loads from this service, connects to it, and turns no text into markup.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    # Kept, and asked about each time: the names do not change with the version.
    "Cache-Control": "no-cache",
}


@router.get("/")
async def index(request: Request) -> Response:
    """Return the page itself."""
    return _assets().respond(request, "index.html")


@router.get("/page/{name:path}")
async def asset(request: Request, name: str) -> Response:
    """Return a file that the page loads. Raises HTTPException (404)."""
    return _assets().respond(request, name)


@cache
def _assets() -> AssetFolder:
    return AssetFolder.read(_FOLDER, headers=_HEADERS)
