"""An engine's process ends with the process that started it, however that one ended.

vLLM lets the starting process watch its engine and not the other way round: after a kill -9 or an out-of-memory kill of
the service its engine would stay, with the model's memory and with nobody to ask it anything.
"""

import functools
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import wait

_GRACE = 10.0
"""Seconds in which the process may end in its own way."""


@functools.cache
def end_with_parent() -> None:
    """Watch the starting process from a thread; nothing happens where there is none, as in the service itself."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), name="end-with-parent", daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
