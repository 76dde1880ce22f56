"""Write a checkpoint directory whole or not at all, and never over other files."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medmoe.model.config import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, CONFIG_FILE
from medmoe.model.errors import CheckpointError
from medmoe.model.files.bounded_read import read_bounded
from medmoe.model.files.weight_files import SHARDS_PATTERN, WEIGHTS_FILE, WEIGHTS_INDEX_FILE

_OURS = {
    CONFIG_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    *("tokenizer.json", "tokenizer_config.json", "conversion.json"),
    *("calibration.json", "routing_reference.json", "trained_images.json"),
    "training_reference.safetensors",
    *("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE"),
}
"""What a checkpoint directory holds; whatever else lies in one is its owner's and is not thrown away."""


@contextmanager
def staged_directory(directory: Path, *, replace: bool) -> Iterator[Path]:
    """Yield an empty sibling of `directory` to fill; on success it takes `directory`'s place, on failure it vanishes.

    Raises CheckpointError as `check_replaceable` does, before and after the filling, and when writing fails. What is
    replaced is removed only after the new one is in place, and comes back when that fails.
    """
    place = directory.resolve()
    check_replaceable(directory, replace=replace)
    staging: Path | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Short, whatever the directory's own name is.
        staging = Path(tempfile.mkdtemp(prefix=".medmoe.", dir=place.parent))
        yield staging
        # Temporary files are private; a checkpoint is read by whichever user serves it.
        staging.chmod(0o755)
        for path in staging.iterdir():
            path.chmod(0o644)
        check_replaceable(directory, replace=replace)
        _take_place(staging, place)
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be written: {error.strerror or error}") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def check_replaceable(directory: Path, *, replace: bool) -> None:
    """Raise CheckpointError unless `directory` is absent, empty, or, with `replace`, a checkpoint and nothing else."""
    if os.path.lexists(directory) and not directory.exists():
        raise CheckpointError(f"{directory} is a link that leads nowhere: remove it or choose another directory")
    try:
        entries = sorted(directory.iterdir()) if directory.exists() else []
    except NotADirectoryError as error:
        raise CheckpointError(f"{directory} is a file: choose another directory") from error
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {error.strerror}") from error
    if directory.exists() and os.path.ismount(directory):
        raise CheckpointError(f"{directory} is a mount point, which cannot be replaced: choose a directory below it")
    if not entries:
        return
    if not replace:
        raise CheckpointError(f"{directory} exists and is not empty: choose another directory, or remove this one")
    foreign = [entry.name for entry in entries if not _is_ours(entry)]
    if foreign:
        raise CheckpointError(f"{directory} holds {foreign[0]!r}, which is no part of a checkpoint: move it away first")
    if not _is_checkpoint(directory):
        raise CheckpointError(f"{directory} holds files, but no checkpoint of this project: it is not replaced")


def _is_ours(entry: Path) -> bool:
    return entry.is_file() and (entry.name in _OURS or entry.match(SHARDS_PATTERN))


def _is_checkpoint(directory: Path) -> bool:
    try:
        config = json.loads(read_bounded(directory / CONFIG_FILE))
    except (OSError, ValueError, RecursionError, CheckpointError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "medmoe"


def _take_place(staging: Path, place: Path) -> None:
    if not place.exists() or not any(place.iterdir()):
        # Fails by itself when something has appeared there meanwhile.
        staging.rename(place)
        return
    retired = Path(tempfile.mkdtemp(prefix=".medmoe.old.", dir=place.parent))
    kept = retired / "checkpoint"
    try:
        place.rename(kept)
        try:
            staging.rename(place)
        except BaseException:
            kept.rename(place)
            raise
    finally:
        if place.exists():
            shutil.rmtree(retired, ignore_errors=True)
