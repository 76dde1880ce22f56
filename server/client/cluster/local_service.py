"""Run a service of one's own on a free port of this machine, for as long as this process lives."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping

from medmoe.client.errors import ClientError

_PREFIX = "MEDMOE_"
_OF_OTHER_CLIENTS = (
    *("API_KEY", "OIDC_", "TLS_", "HOST", "PORT", "INSECURE", "ADMIN_SOCKET", "URL", "REQUESTS_PER_MINUTE"),
    *("BATCH_", "CHECKPOINTS_DIR", "DICOMWEB_"),
)
"""Beginnings of variables that concern who reaches a service, and what it offers beside answers about sent images.

Only this process reaches its own. A directory of batches belongs to one service, and files may be on one machine alone.
"""


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
        self._last = "it wrote nothing"
        self.url = self._ready_url(self._process.stderr)
        # A full pipe would make the service lose log lines.
        threading.Thread(target=self._follow, args=(self._process.stderr,), daemon=True).start()

    @property
    def alive(self) -> bool:
        """Return whether the service's process runs."""
        return self._process.poll() is None

    def _ready_url(self, log: Iterable[bytes]) -> str:
        for line in self._lines(log):
            try:
                found = json.loads(line)
                if found["message"] == "ready":
                    return str(found["api"])
            except (ValueError, LookupError, TypeError):
                continue
        status = self._process.wait()
        raise ServiceEnded(f"an actor's service did not start (status {status}): {self._last}")

    def _follow(self, log: Iterable[bytes]) -> None:
        for _ in self._lines(log):
            pass

    def _lines(self, log: Iterable[bytes]) -> Iterable[str]:
        for line in log:
            text = line.decode(errors="replace").rstrip()
            self._last = text
            # Ray keeps an actor's standard error in a file.
            sys.stderr.write(f"{text}\n")
            yield text


def service_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service that only this machine reaches."""
    kept = {
        name: value
        for name, value in environment.items()
        if not name.upper().startswith(tuple(_PREFIX + rest for rest in _OF_OTHER_CLIENTS))
    }
    return kept | {"MEDMOE_HOST": "127.0.0.1", "MEDMOE_PORT": "0"}
