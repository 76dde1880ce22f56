"""Answer with static files from memory, each with an ETag."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fastapi import Request, Response
from starlette.exceptions import HTTPException

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".dcm": "application/dicom",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """Hold one file's content, media type and ETag."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file whose suffix is known."""
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        return cls(content=content, media_type=_MEDIA_TYPES[path.suffix], etag=etag)

    def respond(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Return the file with `headers`, or 304 to a client that has it."""
        sent = {**headers, "ETag": self.etag}
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if known & {self.etag, "*"}:
            return Response(status_code=304, headers=sent)
        return Response(self.content, media_type=self.media_type, headers=sent)


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetFolder:
    """Hold the files of some folders by their paths in them, and the headers that all of them are sent with."""

    assets: Mapping[str, Asset]
    headers: Mapping[str, str]

    @classmethod
    def read(cls, *folders: Path, headers: Mapping[str, str]) -> Self:
        """Read every file of a known media type. No path is ever made of what a client sends."""
        assets = {
            path.relative_to(folder).as_posix(): Asset.read(path)
            for folder in folders
            for path in folder.rglob("*")
            if path.suffix in _MEDIA_TYPES
        }
        return cls(assets=assets, headers=headers)

    def respond(self, request: Request, name: str) -> Response:
        """Return the file `name`. Raises HTTPException (404)."""
        if name not in self.assets:
            raise HTTPException(404)
        return self.assets[name].respond(request, self.headers)
