"""Compute SHA-256 digests of files. Torch-free."""

import hashlib
from pathlib import Path

from medmoe.model.errors import CheckpointError


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the whole file, read in pieces. Raises OSError as open does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_file_sha256(path: Path) -> str:
    """Return `file_sha256` of a checkpoint's file. Raises CheckpointError when it cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
