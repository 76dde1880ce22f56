"""The page at `/`: a person drops a picture, asks, and sees what the API answers.

Files as they lie in server/page, the same for everybody and without anything of this deployment: so whoever may reach
the port gets them, and the page asks for a key where the API does. A browser has no other way to send one.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parents[1] / "page"
_INDEX = "index.html"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_METHODS = ["GET", "HEAD"]
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asset:
    content: bytes
    media_type: str
    etag: str


@router.api_route("/", methods=_METHODS)
async def index(request: Request) -> Response:
    """The page itself."""
    return _answer(request, _INDEX)


@router.api_route("/page/{name}", methods=_METHODS)
async def asset(request: Request, name: str) -> Response:
    """What the page loads. Raises HTTPException (404)."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    found = _assets().get(name)
    if found is None:
        raise HTTPException(404)
    headers = _HEADERS | {"ETag": found.etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {found.etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


@cache
def _assets() -> dict[str, _Asset]:
    """Everything there is, by name: no path is ever made of what a client sends."""
    return {path.name: _read(path) for path in sorted(_FOLDER.iterdir()) if path.suffix in _MEDIA_TYPES}


def _read(path: Path) -> _Asset:
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _Asset(content=content, media_type=_MEDIA_TYPES[path.suffix], etag=etag)
