"""Check that a disk can be written and has room before a run begins."""

import shutil
import tempfile
from pathlib import Path

from medmoe.model.errors import ConfigError


def require_writable(directory: Path, *, otherwise: str = "choose another --output") -> None:
    """Create `directory` and write to it. Raises ConfigError where that fails."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"\0")
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written: {error.strerror or error}; {otherwise}") from error


def require_writable_checkpoint(checkpoint: Path) -> None:
    """Write to the directory of a checkpoint that is there. Raises ConfigError where that fails."""
    require_writable(checkpoint, otherwise="copy the checkpoint to a directory that can")


def require_space(
    directory: Path, needed: float, *, purpose: str = "the run needs", otherwise: str = "choose another --output"
) -> None:
    """Raise ConfigError when the disk of `directory` has fewer than `needed` bytes left."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ConfigError(
            f"{directory} has {free / 1e9:.1f} GB left and {purpose} {needed / 1e9:.1f} GB; make room, or {otherwise}"
        )
