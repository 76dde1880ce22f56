"""May the target be written: is anything in the way, and is there room?"""

import shutil
from pathlib import Path

from medmoe.model.config import CONFIG_FILE
from medmoe.model.conversion.options import Options
from medmoe.model.errors import CheckpointError

_SPARE_BYTES = 64 * 2**20


def check_target(source: Path, target: Path, options: Options) -> None:
    """Raises CheckpointError when `target` exists and may not be replaced, or when replacing it would lose an input."""
    place = target.resolve()
    for needed in filter(None, (source, options.vision_tower)):
        if needed.resolve().is_relative_to(place):
            raise CheckpointError(f"{target} is or holds {needed}, which is read: choose another target")
    if not target.exists():
        return
    if not options.overwrite:
        raise CheckpointError(f"{target} exists: choose another target, or replace it with --overwrite")
    if not target.is_dir() or (any(target.iterdir()) and not (target / CONFIG_FILE).is_file()):
        raise CheckpointError(f"{target} is not a checkpoint directory, so that it is not replaced")


def check_space(target: Path, *, nbytes: int) -> None:
    """Raises CheckpointError when the target's disk has no room for the weights."""
    place = target.resolve().parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < nbytes + _SPARE_BYTES:
        raise CheckpointError(
            f"{target} needs {nbytes / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free on its disk"
        )
