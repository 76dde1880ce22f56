"""A directory that appears whole or not at all; apart from io.py so that the converter shares it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged_directory(directory: Path) -> Iterator[Path]:
    """Yield an empty sibling of `directory` to fill; on success it takes `directory`'s place, on failure it vanishes.

    What stood there before is removed only after the new one is in place.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        yield staging
        # Temporary files are private; a checkpoint is read by whichever user serves it.
        staging.chmod(0o755)
        for path in staging.iterdir():
            path.chmod(0o644)
        _swap(staging, directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _swap(staging: Path, directory: Path) -> None:
    if directory.exists():
        retired = Path(tempfile.mkdtemp(prefix=f".{directory.name}.old.", dir=directory.parent))
        os.replace(directory, retired / directory.name)
        os.replace(staging, directory)
        shutil.rmtree(retired)
    else:
        os.replace(staging, directory)
