"""What the service uses of uvicorn beyond its documented interface is still there."""

import inspect
import re
from pathlib import Path

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

import medmoe.server


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
    assert (inside.app, inside.transport, inside.flow) == (config.loaded_app, None, None)
    for name in ("on_response_complete", "send_400_response", "shutdown", "_unset_keepalive_if_required"):
        assert callable(getattr(H11Protocol, name)), name
    cycle = inspect.signature(RequestResponseCycle.__init__).parameters
    assert {"conn", "message_event", "on_response"} <= set(cycle)
    assert {"disconnected", "response_started", "response_complete"} <= set(
        RequestResponseCycle.__init__.__code__.co_names
    )
    assert STATUS_PHRASES[503] == b"Service Unavailable"
    assert (ServerState().connections, ServerState().default_headers) == (set(), [])


def test_one_module_imports_what_is_not_documented() -> None:
    root = Path(medmoe.server.__path__[0])
    importing = {
        path.name for path in root.rglob("*.py") if re.search(r"uvicorn\.(protocols|server|config)", path.read_text())
    }
    assert importing == {"uvicorn_adapter.py"}
