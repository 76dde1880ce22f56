"""Carry the scores of images from the engine's process to the service, through a named pipe. Torch-free.

The engine computes an image's features once and keeps what it makes of them in its caches; the service remembers the
score for as long as the image may be there.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from cachetools import LRUCache

SCORE_PIPE = "medmoe_image_scores"
"""Key of the pipe's path in vLLM's `additional_config`."""
_RECORD = struct.Struct("<32sf")
"""SHA-256 that identifies the image, and its score."""
_AT_ONCE = 4096 // _RECORD.size
"""Records that a pipe takes whole or not at all (PIPE_BUF)."""
_REMEMBERED = 2**17
"""Images; more than the engine's caches hold. A score takes about 200 bytes."""


class ScoreWriter:
    """The engine's end."""

    def __init__(self, path: Path) -> None:
        """Raise OSError when nothing reads the pipe at `path`."""
        self._pipe = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def write(self, scores: Iterable[tuple[bytes, float]]) -> None:
        """Send the SHA-256 of each image with its score; the service can read them when this returns."""
        records = [_RECORD.pack(image, score) for image, score in scores]
        for start in range(0, len(records), _AT_ONCE):
            os.write(self._pipe, b"".join(records[start : start + _AT_ONCE]))


class ScoreReader:
    """The service's end, which makes the pipe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o600)
        # Open for writing too: a pipe without a writer is always readable, and an event loop would never rest.
        self.fileno = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""
        self._scores: LRUCache[bytes, float] = LRUCache(_REMEMBERED)

    def read(self) -> None:
        """Take what has been written so far; return at once."""
        while True:
            try:
                self._rest += os.read(self.fileno, 2**16)
            except BlockingIOError:
                break
        whole = len(self._rest) // _RECORD.size * _RECORD.size
        self._scores.update(_RECORD.iter_unpack(self._rest[:whole]))
        self._rest = self._rest[whole:]

    def score(self, image_sha256: str) -> float | None:
        """Return the score of an image by its hexadecimal SHA-256; None where the engine has sent none."""
        self.read()
        return self._scores.get(bytes.fromhex(image_sha256))

    def close(self) -> None:
        """Close the pipe. Call it once."""
        os.close(self.fileno)
