"""Run a service of one's own on a free port of this machine, for as long as this process lives."""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping

from medmoe.client.cluster.run_module import GRACE
from medmoe.client.errors import ClientError

_PREFIX = "MEDMOE_"
_OF_THE_NETWORK = ("API_KEY", "OIDC_", "TLS_", "HOST", "PORT", "INSECURE", "ADMIN_SOCKET", "URL")
"""Beginnings of variables that concern who reaches a service; only this process reaches its own."""
_LAST_LINES = 20


class ServiceEnded(ClientError):
    """The service that an actor runs has ended, or did not start."""


class LocalService:
    """Start `medmoe serve` with the environment's settings; `url` is its address."""

    def __init__(self) -> None:
        """Wait until the service is ready. Raises ServiceEnded with the last line of its log when it ends before."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "medmoe.client.cluster.run_module", "medmoe.server"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=service_environment(os.environ),
        )
        assert self._process.stderr is not None
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self.url = self._ready_url(self._process.stderr)
        # A full pipe would make the service lose log lines.
        threading.Thread(target=self._follow, args=(self._process.stderr,), daemon=True).start()

    @property
    def alive(self) -> bool:
        """Return whether the service's process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the service and wait for it. Safe to call twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(2 * GRACE)

    def _ready_url(self, log: Iterable[bytes]) -> str:
        for line in self._lines(log):
            try:
                found = json.loads(line)
                if found["message"] == "ready":
                    return str(found["api"])
            except (ValueError, LookupError, TypeError):
                continue
        status = self._process.wait()
        last = self._last[-1] if self._last else "it wrote nothing"
        raise ServiceEnded(f"an actor's service did not start (status {status}): {last}")

    def _follow(self, log: Iterable[bytes]) -> None:
        for _ in self._lines(log):
            pass

    def _lines(self, log: Iterable[bytes]) -> Iterable[str]:
        for line in log:
            text = line.decode(errors="replace").rstrip()
            self._last.append(text)
            # Ray keeps an actor's standard error in a file.
            sys.stderr.write(f"{text}\n")
            yield text


def service_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service that only this machine reaches."""
    kept = {
        name: value
        for name, value in environment.items()
        if not name.upper().startswith(tuple(_PREFIX + rest for rest in _OF_THE_NETWORK))
    }
    return kept | {"MEDMOE_HOST": "127.0.0.1", "MEDMOE_PORT": "0"}
