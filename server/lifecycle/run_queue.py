"""Measure how long the engine's threads wait for a processor (Linux)."""

from contextlib import suppress
from pathlib import Path

import psutil

_DECODERS = "sandbox.worker"
"""Part of the command line of processes that decode images."""
_NANOSECONDS = 1e9


class RunQueueWait:
    """Time on the run queue of the processes that this one has started, decoders aside."""

    def __init__(self) -> None:
        self._processes: list[int] | None = None
        self._waits: dict[Path, int] = {}

    def reset(self) -> None:
        """Forget the processes: a new engine has others."""
        self._processes, self._waits = None, {}

    def seconds(self) -> float:
        """Return the most seconds that a thread has waited since the last call.

        0.0 at the first call, and where the kernel does not tell.
        """
        if self._processes is None:
            self._processes = [child.pid for child in psutil.Process().children(recursive=True) if _is_engine(child)]
        found: dict[Path, int] = {}
        for pid in self._processes:
            with suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    with suppress(OSError, IndexError, ValueError):
                        # Time on a processor, time waiting for one, number of turns (proc(5), schedstat).
                        found[task] = int((task / "schedstat").read_text().split()[1])
        most = max((wait - self._waits[task] for task, wait in found.items() if task in self._waits), default=0)
        self._waits = found
        return most / _NANOSECONDS


def _is_engine(process: psutil.Process) -> bool:
    try:
        return not any(_DECODERS in argument for argument in process.cmdline())
    except psutil.Error:
        return False
