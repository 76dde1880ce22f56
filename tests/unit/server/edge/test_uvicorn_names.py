"""What the service uses of uvicorn beyond its documented interface is still there."""

import inspect

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState


def test_the_server_has_the_methods_that_are_overridden() -> None:
    for name in ("main_loop", "shutdown", "handle_exit", "capture_signals"):
        assert callable(getattr(uvicorn.Server, name)), name
    assert list(inspect.signature(uvicorn.Server.shutdown).parameters) == ["self", "sockets"]
    server = uvicorn.Server(uvicorn.Config("no:app"))
    assert (server.should_exit, server.started) == (False, False)


async def test_the_protocol_has_the_attributes_that_are_read() -> None:
    config = uvicorn.Config(Starlette(), log_config=None)
    config.load()
    inside = H11Protocol(config, ServerState(), {})
    assert (inside.cycle, inside.timeout_keep_alive_task) == (None, None)
    assert {*inside.conn.states.values()} == {h11.IDLE}
    assert STATUS_PHRASES[503] == b"Service Unavailable"
    assert (ServerState().connections, ServerState().default_headers) == (set(), [])
