"""The service's end of the line to the process that makes decoding children; one for the whole process."""

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass

from medmoe.server.errors import DecoderUnavailable
from medmoe.server.imaging.config import DecoderConfig

_MODULE = "medmoe.server.imaging.sandbox.worker"
_PATIENCE = 120.0
"""Seconds: on a busy machine the imports before the first child take several."""
_KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
"""Of the environment; the rest holds secrets that a decoder has no use for."""


@dataclass(kw_only=True, slots=True)
class Child:
    """One decoding process; whoever asked for it calls `WorkerSpawner.end` once, in the end."""

    pid: int
    connection: socket.socket
    """Non-blocking."""
    served: int = 0
    """Pictures so far."""


class WorkerSpawner:
    """Starts `decoder_process` when first asked, and again when it has died. Blocking; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(self, config: DecoderConfig) -> Child:
        """A child with its limits. Raises DecoderUnavailable."""
        command = {"do": "fork", "config": config.model_dump_json()}
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                answer = self._ask(command, descriptors=[theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        return Child(pid=answer["pid"], connection=ours)

    def end(self, child: Child) -> int:
        """Make sure that it is gone; the number of the signal that ended it, 0 for none or where nobody knows."""
        child.connection.close()
        with contextlib.suppress(DecoderUnavailable):
            return self._ask({"do": "end", "pid": child.pid}, restart=False)["signal"]
        return 0

    def close(self) -> None:
        """End the process and, with it, all its children."""
        with self._lock:
            self._drop()

    def _ask(self, command: object, *, descriptors: list[int] | None = None, restart: bool = True) -> dict[str, int]:
        with self._lock:
            for _ in range(2 if restart else 1):
                if self._control is None:
                    if not restart:
                        break
                    self._start()
                assert self._control is not None
                try:
                    return _exchange(self._control, command, descriptors or [])
                except (OSError, EOFError, ValueError):
                    # It has died, with all its children.
                    self._drop()
        raise DecoderUnavailable("no decoding process can be started")

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # Numerical libraries would otherwise keep a thread and its memory for every core.
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
                [sys.executable, "-P", "-m", _MODULE],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=environment,
                # Control-C goes to whole groups, and the service drains before it ends.
                start_new_session=True,
            )
        ours.settimeout(_PATIENCE)
        self._control = ours

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _exchange(control: socket.socket, command: object, descriptors: list[int]) -> dict[str, int]:
    text = json.dumps(command).encode() + b"\n"
    sent = socket.send_fds(control, [text], descriptors)
    control.sendall(text[sent:])
    answer = b""
    while not answer.endswith(b"\n"):
        part = control.recv(4096)
        if not part:
            raise EOFError
        answer += part
    found: dict[str, int] = json.loads(answer)
    return found


# Shared by all apps of a process: starting it takes the better part of a second, and it holds no state of theirs.
NURSERY = WorkerSpawner()
atexit.register(NURSERY.close)
