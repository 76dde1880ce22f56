"""The SHA-256 by which a file of a checkpoint or a dataset is known. Torch-free."""

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Of every byte, read piece by piece; hexadecimal. Raises OSError as open does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
