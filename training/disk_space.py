"""Check that a disk has room before a run begins."""

import shutil
from pathlib import Path

from medmoe.model.errors import ConfigError


def require_space(
    directory: Path, needed: float, *, purpose: str = "the run needs", otherwise: str = "choose another --output"
) -> None:
    """Raise ConfigError when the disk of `directory` has fewer than `needed` bytes left."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ConfigError(
            f"{directory} has {free / 1e9:.1f} GB left and {purpose} {needed / 1e9:.1f} GB; make room, or {otherwise}"
        )
