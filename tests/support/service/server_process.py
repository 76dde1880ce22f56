"""Run the server in a child process on a free port, over a fake engine or the real one."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import psutil

_STOP = 90.0
_ENGINE_MARK = "EngineCore"
"""Part of the name or command line of an engine's process, vLLM's or the mortal engine's."""


@dataclass(kw_only=True, slots=True)
class ServerProcess:
    """Hold a listening server; `url` is its address."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)
    """Its standard error so far."""

    def wait_ready(self, seconds: float) -> float:
        """Return the seconds until /health/ready is 200. Raises TimeoutError, or RuntimeError if it has ended."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}")
            try:
                if httpx.get(f"{self.url}/health/ready").status_code == 200:
                    return time.monotonic() - begun
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise TimeoutError("the server was not ready in time")

    def stop(self) -> None:
        """Send SIGTERM and wait, so that the engine is freed. Raises TimeoutExpired."""
        self.process.terminate()
        self.process.wait(_STOP)

    def engine(self) -> psutil.Process:
        """Return the engine's process. Raises LookupError when there is none."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if child.status() != psutil.STATUS_ZOMBIE and _ENGINE_MARK in " ".join([child.name(), *child.cmdline()]):
                return child
        raise LookupError("the server has no engine process")


@contextmanager
def server_process(
    *, arguments: Sequence[str] = ("-m", "medmoe.server"), settings: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Start a server with `settings` (MEDMOE_*) instead of the environment's; kill it at the end if it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDMOE_")}
    environment |= {"MEDMOE_PORT": "0"} | dict(settings or {})
    if environment.get("MEDMOE_ENGINE") == "fake":
        # It spreads its probability over the whole vocabulary.
        environment.setdefault("MEDMOE_MIN_LABEL_MASS", "0")
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines: list[str] = []
    try:
        address = ""
        while not address:
            line = process.stderr.readline()
            if not line:
                raise RuntimeError(f"the server did not start: {''.join(lines)}")
            lines.append(line)
            address = _address(line)
        server = ServerProcess(process=process, url=address, lines=lines)
        reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
        reader.start()
        yield server
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _address(line: str) -> str:
    try:
        message = str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return ""
    return next((word for word in message.split() if word.startswith("http")), "") if "running on" in message else ""
