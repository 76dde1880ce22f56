"""Serve operators on a Unix socket that only the service's own user may open: drain, and reset the statistics.

The app has no route in common with the one on the network; the permissions of the socket's file authenticate.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from medmoe.model.errors import ConfigError
from medmoe.server.state import State

_OWNER_ONLY = 0o600
_BACKLOG = 16


def admin_app(state: State) -> Starlette:
    """Serve `GET /admin/status`, `POST /admin/drain`, `POST /admin/router/reset`; each answers with the status."""

    def status() -> JSONResponse:
        quarantine = state.active.engine.quarantine
        return JSONResponse(
            {
                "status": state.readiness.phase,
                "in_flight": state.admission.in_flight,
                "suspects": quarantine.suspects,
                "refused": quarantine.refused,
                "counting_since": state.active.router_stats.since.isoformat(timespec="seconds"),
            }
        )

    async def show(_: Request) -> JSONResponse:
        return status()

    async def drain(_: Request) -> JSONResponse:
        # Final, as it is after SIGTERM; the process goes on until it is ended, for the requests inside.
        for model in state.models:
            model.readiness.drain()
        return status()

    async def reset(_: Request) -> JSONResponse:
        state.active.router_stats.reset()
        return status()

    return Starlette(
        routes=[
            Route("/admin/status", show, methods=["GET"]),
            Route("/admin/drain", drain, methods=["POST"]),
            Route("/admin/router/reset", reset, methods=["POST"]),
        ]
    )


@contextlib.contextmanager
def admin_socket(path: Path | None) -> Iterator[socket.socket | None]:
    """Open a listening socket at `path`, whose file is removed afterwards; None opens none. Raises ConfigError."""
    if path is None:
        yield None
        return
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_left_over(path)
        listener.bind(str(path))
        # No connection is possible before `listen`, so the permissions that it was made with do not matter.
        path.chmod(_OWNER_ONLY)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"MEDMOE_ADMIN_SOCKET: no socket can be made there: {error.strerror or error}") from error
    made = path.stat().st_ino
    try:
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == made:
                path.unlink()


def _remove_left_over(path: Path) -> None:
    """Remove a socket without a listener, which a killed process has left; refuse to remove anything else."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(0, "there is a file that is no socket")
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as visitor:
            try:
                visitor.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise FileExistsError(0, "another process listens there")
