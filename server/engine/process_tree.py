"""An engine's processes, and what they leave behind when they are killed.

Apart from vllm_engine.py because it is about processes, whoever wrote them. A killed process cleans nothing up: its own
children find out in their own time, and shared memory waits for the end of ours. A new engine must find that memory
free, on the accelerator above all.
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
"""Python's shared memory and semaphores, NCCL's, vLLM's between CPU ranks; whatever else is mapped may be others' too.
"""
_OPENMP = "__KMP_REGISTERED_LIB_"
"""What Intel's OpenMP names after a process that uses it, and leaves there unless that process exits by itself."""


class ProcessTree:
    """The processes with the given ids and all that they had started when this object was made."""

    def __init__(self, roots: Iterable[int]) -> None:
        """Raises psutil.NoSuchProcess when one of `roots` has already ended."""
        self._roots = [psutil.Process(pid) for pid in roots]
        children = [child for root in self._roots for child in root.children(recursive=True)]
        self._processes = [*self._roots, *children]
        self._shared = {name for process in self._processes for name in _mapped(process.pid)}

    def is_whole(self) -> bool:
        """Whether all roots are running."""
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
        """Return when every process is gone, by itself or after `grace` seconds by force, and its shared memory too."""
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
    """Names under /dev/shm; none where there is no /proc."""
    try:
        return _OWN.findall(Path(f"/proc/{pid}/maps").read_text())
    except OSError:
        return []


def _sweep_openmp() -> None:
    """Whoever the process was, so that those are swept too whose service was killed."""
    for file in _MEMORY.glob(f"{_OPENMP}*_{os.getuid()}"):
        pid = file.name.removeprefix(_OPENMP).partition("_")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            file.unlink(missing_ok=True)


def _unlink(name: str) -> None:
    """Also with the resource tracker, which would otherwise complain when this process ends."""
    with suppress(FileNotFoundError):
        if name.startswith("psm_"):
            left = shared_memory.SharedMemory(name=name)
            left.close()
            left.unlink()
            return
        (_MEMORY / name).unlink()
        if name.startswith("sem."):
            resource_tracker.unregister(f"/{name.removeprefix('sem.')}", "semaphore")
