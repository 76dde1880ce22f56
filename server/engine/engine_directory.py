"""Hold the files of one engine: vLLM's sockets, and the pipe through which it sends the scores of images.

A killed service leaves its directory behind; the next service removes it.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from medmoe.model.unlike_training.score_pipe import ScoreReader

_PREFIX = "medmoe-engine-"
_TRIES = 5


class EngineDirectory:
    """A temporary directory for each engine, locked as long as its service lives."""

    def __init__(self) -> None:
        """Tell vLLM where its sockets go, and read the pipe from now on, on the running event loop."""
        _sweep(Path(tempfile.gettempdir()))
        self._directory, self._lock = _create()
        path = Path(self._directory.name)
        os.environ["VLLM_RPC_BASE_PATH"] = str(path)
        self.scores = ScoreReader(path / "image-scores")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.scores.fileno, self.scores.read)

    def remove(self) -> None:
        """Close the pipe and remove the directory. Call it once, when the engine is gone."""
        self._loop.remove_reader(self.scores.fileno)
        self.scores.close()
        self._directory.cleanup()
        if self._lock is not None:
            os.close(self._lock)


def _create() -> tuple["tempfile.TemporaryDirectory[str]", int | None]:
    """Return a new directory and its lock; None where the file system has no locks."""
    for _ in range(_TRIES):
        directory = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
        lock = _locked(Path(directory.name))
        if lock is not None and Path(directory.name).exists():
            return directory, lock
        # A service that starts at the same moment has removed it before it was locked.
        directory.cleanup()
        if lock is not None:
            os.close(lock)
    return tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True), None


def _sweep(folder: Path) -> None:
    """Remove the directories of services that have ended: the kernel has released their locks."""
    for left in folder.glob(f"{_PREFIX}*"):
        lock = _locked(left)
        if lock is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)


def _locked(directory: Path) -> int | None:
    """Return a descriptor that holds the lock; None when another process or another user has the directory."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_uid == os.getuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
        except OSError:
            pass
        os.close(descriptor)
    return None
