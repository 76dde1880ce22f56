"""Find checkpoints and question lists by their names in the operator's directory."""

import re
from pathlib import Path

from medmoe.model.config import CONFIG_FILE
from medmoe.server.engine.deployment.rollout_errors import CheckpointNotFound

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""Names of checkpoints and question lists: one part of a path, and never `..`."""
_MOST_LISTED = 100


class CheckpointDirectory:
    """The directory MEDMOE_CHECKPOINTS_DIR; nothing outside it is read, whatever names and links say."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def names(self) -> tuple[str, ...]:
        """Return the names of the checkpoints, at most a hundred."""
        try:
            found = sorted(entry.name for entry in self._root.iterdir() if self._is_checkpoint(entry.name))
        except OSError:
            return ()
        return tuple(found[:_MOST_LISTED])

    def checkpoint(self, name: str) -> Path:
        """Return the directory of a checkpoint. Raises CheckpointNotFound."""
        if not self._is_checkpoint(name):
            raise CheckpointNotFound(param="name")
        return self._root / name

    def file(self, name: str) -> Path:
        """Return a file. Raises CheckpointNotFound."""
        path = self._root / name
        if not re.fullmatch(NAME, name) or path.is_symlink() or not path.is_file():
            raise CheckpointNotFound("MEDMOE_CHECKPOINTS_DIR holds no file of this name", param="questions")
        return path

    def _is_checkpoint(self, name: str) -> bool:
        path = self._root / name
        try:
            return (
                re.fullmatch(NAME, name) is not None
                and not path.is_symlink()
                and (path / CONFIG_FILE).is_file()
                and all(entry.resolve().is_relative_to(self._root) for entry in path.rglob("*"))
            )
        except OSError:
            return False
