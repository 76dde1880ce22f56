"""Write files that survive a crash, readable by the service's own user alone."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from medmoe.model.errors import ConfigError
from medmoe.server.batches.errors import StorageFull, StorageUnavailable

Record = TypeVar("Record", bound=BaseModel)

RECORD_SUFFIX = ".json"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_COPIED = 2**20
_LOCK_FILE = "lock"
_STAGING = ".{}.new"


@contextlib.contextmanager
def written() -> Iterator[None]:
    """Raise StorageFull or StorageUnavailable for a write in the block that fails."""
    try:
        yield
    except OSError as error:
        raise (StorageFull if error.errno in _FULL else StorageUnavailable)() from error


def open_directory(directory: Path, *parts: str) -> int:
    """Make `directory` with its `parts`, lock it, and return the lock. Raises ConfigError.

    What a killed process has not finished to write is deleted: nothing would ever name it again.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in parts:
            (directory / part).mkdir(mode=0o700, exist_ok=True)
        lock = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in [left for part in parts for left in (directory / part).glob(_STAGING.format("*"))]:
                left.unlink()
        except BaseException:
            os.close(lock)
            raise
    except BlockingIOError as error:
        raise ConfigError(f"MEDMOE_BATCH_DIR: another process uses {directory}") from error
    except OSError as error:
        raise ConfigError(f"MEDMOE_BATCH_DIR: {directory} cannot be used: {error.strerror}") from error
    return lock


def read_records(folder: Path, kind: type[Record], *, of: str) -> Iterator[Record]:
    """Yield the records in `folder`, oldest first. Raises ConfigError, which says `of` what, for one that is none."""
    for path in sorted(folder.glob(f"[!.]*{RECORD_SUFFIX}")):
        try:
            yield kind.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ConfigError(f"MEDMOE_BATCH_DIR: {path} is not a record of {of}; move it away") from error


def write(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`. Raises OSError, possibly after a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_new(path: Path, source: BinaryIO) -> int:
    """Copy `source` to `path`, wait for the disk, and return the size. A failure leaves no file.

    Raises StorageUnavailable.
    """
    size = 0
    try:
        with written(), _opened(path, _NEW) as descriptor:
            while piece := source.read(_COPIED):
                write(descriptor, piece)
                size += len(piece)
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return size


def replace(path: Path, content: bytes) -> None:
    """Replace `path` as one step, and wait for the disk.

    Raises StorageUnavailable; then there is no file where there was none, and otherwise the old one or the new one.
    """
    staging = path.with_name(_STAGING.format(path.name))
    made = [staging] if path.exists() else [staging, path]
    try:
        with written():
            with _opened(staging, _NEW) as descriptor:
                write(descriptor, content)
                os.fsync(descriptor)
            staging.replace(path)
            with _opened(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as folder:
                os.fsync(folder)
    except StorageUnavailable:
        for left in made:
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)
        raise


async def delete_each(names: Iterable[str], delete: Callable[[str], Awaitable[None]]) -> None:
    """Await the deletion of each. Raises the last OSError, after the others' deletion."""
    failure: OSError | None = None
    for name in names:
        try:
            await delete(name)
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
