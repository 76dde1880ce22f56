"""Watch and kill a tree of processes, and remove the shared memory that it leaves.

A killed process cleans nothing up: its children live on and its shared memory stays. The next engine needs that memory,
above all the accelerator's.
"""

import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

import psutil

_GRACE = 5.0
"""Seconds in which orphans may end by themselves."""
_POLL = 0.05
_MEMORY = Path("/dev/shm")  # noqa: S108 (where POSIX shared memory lies; no file of ours is made there)
_OWN = re.compile(rf"{_MEMORY}/((?:psm_|sem\.mp-|nccl-)[^\s/]+|[^\s/]+-cpushm[^\s/]*)$", re.MULTILINE)
"""Shared memory and semaphores of Python, of NCCL and of vLLM between CPU ranks; other mapped files may be shared."""
_OPENMP = "__KMP_REGISTERED_LIB_"
"""Prefix of the file of Intel's OpenMP, named after a process; it stays when that process is killed."""


class ProcessTree:
    """Processes and all children that they had when this object was made."""

    def __init__(self, roots: Iterable[int]) -> None:
        """Take the process ids `roots`. Raises psutil.NoSuchProcess when one has already ended."""
        self._roots = [psutil.Process(pid) for pid in roots]
        children = [child for root in self._roots for child in root.children(recursive=True)]
        self._processes = [*self._roots, *children]
        self._shared = {name for process in self._processes for name in _mapped(process.pid)}

    def is_whole(self) -> bool:
        """Return whether all roots are running."""
        return not any(_has_ended(root) for root in self._roots)

    def kill(self) -> None:
        """Kill every process, stopped ones and those started since too."""
        started_since = []
        for root in self._roots:
            with suppress(psutil.NoSuchProcess):
                started_since += root.children(recursive=True)
        for process in dict.fromkeys([*self._processes, *started_since]):
            # psutil compares start times: an id that another process has got since is left alone.
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def clear(self, *, grace: float = _GRACE) -> None:
        """Wait `grace` seconds for every process to end, kill the rest, and remove their shared memory."""
        deadline = time.monotonic() + grace
        while (living := self._living()) and time.monotonic() < deadline:
            time.sleep(_POLL)
        for process in living:
            # psutil looks whether the id still is this process's.
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # Orphans have become our children where we are the first process of a container.
        psutil.wait_procs(living, timeout=grace)
        for name in self._shared:
            _unlink(name)
        self._shared = set()
        _sweep_openmp()

    def _living(self) -> list[psutil.Process]:
        return [process for process in self._processes if not _has_ended(process)]


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _mapped(pid: int) -> list[str]:
    """Return the names under /dev/shm that the process has mapped; none where there is no /proc."""
    try:
        return _OWN.findall(Path(f"/proc/{pid}/maps").read_text())
    except OSError:
        return []


def _sweep_openmp() -> None:
    """Remove the files of all processes that have ended, those of a killed service included."""
    for file in _MEMORY.glob(f"{_OPENMP}*_{os.getuid()}"):
        pid = file.name.removeprefix(_OPENMP).partition("_")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            file.unlink(missing_ok=True)


def _unlink(name: str) -> None:
    """Remove the memory here and in the resource tracker, which would otherwise warn at the process' end."""
    with suppress(FileNotFoundError):
        if name.startswith("psm_"):
            left = shared_memory.SharedMemory(name=name)
            left.close()
            left.unlink()
            return
        (_MEMORY / name).unlink()
        if name.startswith("sem."):
            resource_tracker.unregister(f"/{name.removeprefix('sem.')}", "semaphore")
