"""Answer with static files from memory, with an ETag."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fastapi import Request, Response

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """Hold one file's content, media type and ETag."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file whose suffix is one of MEDIA_TYPES."""
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        return cls(content=content, media_type=MEDIA_TYPES[path.suffix], etag=etag)

    def respond(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Return the file with `headers`, or 304 to a client that has it."""
        sent = {**headers, "ETag": self.etag}
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if known & {self.etag, "*"}:
            return Response(status_code=304, headers=sent)
        return Response(self.content, media_type=self.media_type, headers=sent)
