"""Keep the checkpoints within a stage: `checkpoint-STEP` directories that are there whole or not at all.

Trainer writes a checkpoint's files one after the other under its final name, and takes the highest number for the last
checkpoint: a process that is killed while it writes leaves one that cannot be continued. Here they are written aside
and renamed when they are complete, so that the name says that all is there.
"""

import os
import re
import shutil
from pathlib import Path

from medmoe.model.errors import MedMoEError

_NAME = re.compile(r"checkpoint-(\d{1,12})")
_STAGING = ".checkpoint.new"


class StepCheckpoints:
    """Keep the step checkpoints of one stage's directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def staging(self) -> Path:
        """Return where Trainer writes."""
        return self._directory / _STAGING

    def publish(self, step: int) -> None:
        """Give the complete checkpoint of `step` its name, and remove the older ones."""
        name = f"checkpoint-{step}"
        os.replace(self.staging / name, self._directory / name)
        for older in self._complete()[:-1]:
            shutil.rmtree(older)

    def last(self) -> Path | None:
        """Return the checkpoint to continue from."""
        complete = self._complete()
        return complete[-1] if complete else None

    def clear_unfinished(self) -> None:
        """Remove what a killed process left half-written."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def clear(self) -> None:
        """Remove all checkpoints, when the stage is finished or begins anew."""
        self.clear_unfinished()
        for path in self._complete():
            shutil.rmtree(path)

    def _complete(self) -> list[Path]:
        """Return the complete checkpoints in the order of their steps. A link is none: only what this directory itself
        holds is ever read or removed.
        """
        found = []
        for path in self._directory.glob("checkpoint-*"):
            match = _NAME.fullmatch(path.name)
            if match and path.is_dir() and not path.is_symlink():
                found.append((int(match[1]), path))
        return [path for _, path in sorted(found)]


class TrainingError(MedMoEError):
    """Training cannot go on: the loss is not finite, or a step checkpoint cannot be written or read."""
