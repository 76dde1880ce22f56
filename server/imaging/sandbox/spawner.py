"""Start and stop decoder workers through one process that forks them."""

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass

from medmoe.server.errors import DecoderUnavailable
from medmoe.server.imaging.decoder_config import DecoderConfig

_MODULE = "medmoe.server.imaging.sandbox.worker"
_START_SECONDS = 120.0
"""Limit of the spawner's first answer, which comes after its imports: several seconds on a busy machine."""
_ANSWER_SECONDS = 10.0
"""Limit of every later answer; a spawner that takes longer hangs and is replaced."""
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
"""Environment variables that workers get; others may hold secrets that a decoder does not need."""


@dataclass(kw_only=True, slots=True)
class Worker:
    """One decoder process; its owner must call `WorkerSpawner.stop` once, in the end."""

    pid: int
    connection: socket.socket
    """Non-blocking."""
    served: int = 0
    """Images decoded so far."""


class WorkerSpawner:
    """Forks workers from a process that it starts on first use, and again after that process has died.

    Its methods block; threads may share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def spawn(self, config: DecoderConfig) -> Worker:
        """Fork a worker with the limits of `config`. Raises DecoderUnavailable."""
        command = {"do": "spawn", "config": config.model_dump_json()}
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise DecoderUnavailable("no decoding process can be started") from error
        try:
            with theirs:
                answer = self._ask(command, descriptors=[theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        pid = answer["pid"]
        if pid is None:
            ours.close()
            raise DecoderUnavailable("the system has no process left for a decoder")
        ours.setblocking(False)
        return Worker(pid=pid, connection=ours)

    def stop(self, worker: Worker) -> int | None:
        """Kill `worker` if it still lives; return the number of the signal that ended it, 0 for none.

        Return None when the spawner has ended or hung, and every worker of it with it.
        """
        worker.connection.close()
        try:
            return self._ask({"do": "stop", "pid": worker.pid}, restart=False)["signal"]
        except DecoderUnavailable:
            return None

    def close(self) -> None:
        """End the process and, with it, all its workers."""
        with self._lock:
            self._drop()

    def _ask(
        self, command: object, *, descriptors: list[int] | None = None, restart: bool = True
    ) -> dict[str, int | None]:
        with self._lock:
            for _ in range(2 if restart else 1):
                if self._control is None and not restart:
                    break
                try:
                    seconds = _ANSWER_SECONDS
                    if self._control is None:
                        self._start()
                        seconds = _START_SECONDS
                    assert self._control is not None
                    self._control.settimeout(seconds)
                    return _exchange(self._control, command, descriptors or [])
                except (OSError, EOFError, ValueError):
                    # It hangs, or it has died with all its workers, or the system has no process or descriptor left.
                    self._drop()
        raise DecoderUnavailable("no decoding process can be started")

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._control = ours
        # Numerical libraries would otherwise keep a thread and its memory for every core.
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {
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

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _exchange(control: socket.socket, command: object, descriptors: list[int]) -> dict[str, int | None]:
    text = json.dumps(command).encode() + b"\n"
    sent = socket.send_fds(control, [text], descriptors)
    control.sendall(text[sent:])
    answer = b""
    while not answer.endswith(b"\n"):
        part = control.recv(4096)
        if not part:
            raise EOFError
        answer += part
    found: dict[str, int | None] = json.loads(answer)
    return found


# Shared by all apps of a process: starting it takes most of a second, and it holds no state of theirs.
WORKER_SPAWNER = WorkerSpawner()
atexit.register(WORKER_SPAWNER.close)
