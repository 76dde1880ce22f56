"""Run a module until it ends or standard input does: python -m medmoe.client.cluster.run_module MODULE

The parent holds the other end of standard input. When the parent dies, also by kill -9, this process ends too.
"""

import os
import runpy
import signal
import sys
import threading

_GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL."""


def main(module: str) -> None:
    """Run `module` as the main one."""
    # In the process that is to end: Ray kills an actor's children, and would leave a grandchild behind.
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.argv[1:] = []
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
