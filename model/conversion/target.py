"""Check that the target of a conversion is free, writable and has enough disk space.

The check comes before the first weight is read, which can be an hour before the target is written.
"""

import shutil
import tempfile
from pathlib import Path

from medmoe.model.checkpoint.staging import check_replaceable
from medmoe.model.conversion.options import Options
from medmoe.model.errors import CheckpointError

_SPARE_BYTES = 64 * 2**20
_NAME_BYTES = 255


def check_target(source: Path, target: Path, options: Options) -> Path:
    """Return where to write: `target` with its links followed, so that every later question is about the same place.

    Raises CheckpointError when `target` may not be replaced, when replacing it would lose an input, or when nothing
    can be written where it lies.
    """
    try:
        place = target.resolve()
        for needed in filter(None, (source, options.vision_tower)):
            if needed.resolve().is_relative_to(place):
                raise CheckpointError(f"{target} is or holds {needed}, which is read: choose another target")
        if not options.overwrite and target.is_dir() and any(target.iterdir()):
            raise CheckpointError(f"{target} exists: choose another target, or replace it with --overwrite")
        check_replaceable(target, replace=options.overwrite)
        if len(place.name.encode(errors="surrogateescape")) > _NAME_BYTES:
            raise CheckpointError(f"the name of {target} is longer than {_NAME_BYTES} bytes: choose another target")
        with tempfile.TemporaryDirectory(prefix=".medmoe.", dir=_existing_parent(place)):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{target} cannot be written: {reason}") from error
    return place


def check_space(place: Path, *, nbytes: int) -> None:
    """Raise CheckpointError when the disk of the target's resolved `place` has no room for the weights."""
    free = shutil.disk_usage(_existing_parent(place)).free
    if free < nbytes + _SPARE_BYTES:
        raise CheckpointError(f"{place} needs {nbytes / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free on its disk")


def _existing_parent(place: Path) -> Path:
    return next(parent for parent in place.parents if parent.exists())
