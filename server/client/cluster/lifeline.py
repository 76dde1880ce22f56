"""Run a command until it ends or standard input does: python -m medmoe.client.cluster.lifeline COMMAND...

The parent holds the other end of standard input. When the parent dies, also by kill -9, the command is ended too.
"""

import subprocess
import sys
import threading

GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL."""


def main(command: list[str]) -> int:
    """Return the command's exit status, 1 if a signal ended it."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 (named by the parent)
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 1


def _end_with_input(child: subprocess.Popen[bytes]) -> None:
    while sys.stdin.buffer.read(1):
        pass
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
