"""Compute SHA-256 digests of files. Torch-free."""

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the whole file, read in pieces. Raises OSError as open does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
