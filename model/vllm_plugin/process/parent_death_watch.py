"""End an engine process when its parent process has died.

In vLLM the parent watches its engine and not the other way round. After a kill -9 or an out-of-memory kill of the
service, its engine would keep running and hold the model's memory.
"""

import functools
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import wait

_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""


@functools.cache
def end_with_parent() -> None:
    """Watch the parent process from a thread; do nothing in a process that multiprocessing did not start."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), name="end-with-parent", daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
