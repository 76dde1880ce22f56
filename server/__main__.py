"""`medmoe serve`: serve a checkpoint over HTTP, as the environment's MEDMOE_* variables say.

Settings, log format, engine, app, server, in this order. A start that the user can mend ends with one line.
"""

import contextlib
import logging
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from medmoe.model.cli import single_command
from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import MedMoEError
from medmoe.model.prompt import Prompt
from medmoe.server.app import costly_paths, create_app
from medmoe.server.auth.key_file import new_key
from medmoe.server.configuration.strict_environment import variable
from medmoe.server.edge.connection import EdgeProtocol
from medmoe.server.edge.limits import ConnectionLimits
from medmoe.server.edge.load_shedding import LoadShedder
from medmoe.server.edge.tls import ServerTLS
from medmoe.server.edge.tls_handshake import HandshakeProtocol
from medmoe.server.edge.uvicorn_adapter import STOPPING, DrainingServer, served_beside
from medmoe.server.engine.base import Engine
from medmoe.server.engine.deployment.vllm_environment import built_for_cpu
from medmoe.server.lifecycle.admin import admin_app, admin_socket
from medmoe.server.lifecycle.draining import drain
from medmoe.server.lifecycle.preflight import (
    check_memory,
    check_model_directory,
    check_signature,
    check_weights,
    listening_sockets,
)
from medmoe.server.loopback import is_loopback
from medmoe.server.observability import json_log
from medmoe.server.observability.plain_output import plain_output_as_json
from medmoe.server.settings import Settings
from medmoe.server.state import State

log = logging.getLogger("medmoe.start")

UNUSABLE = 2
"""Exit status when the service cannot start as configured."""
_MAX_HEADER_BYTES = 64 * 1024
_CLOSE_SECONDS = 2
ENGINE_FAILED = 3
"""Exit status when the engine was lost, and not brought back: a restart of the process may help."""


def serve(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="CHECKPOINT", help="Checkpoint directory; by default MEDMOE_MODEL, or the bundled one."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen to the network without API keys; like MEDMOE_INSECURE=true.")
    ] = False,
    new_key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print a new API key and its line for the file MEDMOE_API_KEYS, and stop."),
    ] = None,
) -> None:
    """Serve a Med-MoE checkpoint. Settings are MEDMOE_* variables (server/SETTINGS.md).

    The exit status is 2 if the service cannot start as configured, and 3 if its engine is lost.
    Research software, not a medical device.
    """
    raise typer.Exit(main(checkpoint, insecure=insecure, new_key=new_key))


def main(checkpoint: Path | None = None, *, insecure: bool = False, new_key: str | None = None) -> int:
    """Serve until told to stop, or make an API key. Returns the exit status."""
    given = {"model": checkpoint, "insecure": insecure or None}
    try:
        if new_key is not None:
            return _print_new_key(new_key)
        if sys.flags.optimize:
            return _refuse("python -O and PYTHONOPTIMIZE leave out checks that libraries here make with assert")
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        json_log.configure(settings.log_level)
        return _serve(settings)
    except ValidationError as error:
        return _refuse(_problems(error))
    except MedMoEError as error:
        return _refuse(str(error))


def _print_new_key(name: str) -> int:
    key, line = new_key(name)
    sys.stderr.write(f"The key, shown this once: {key}\nIts line for the file that MEDMOE_API_KEYS names:\n")
    sys.stdout.write(f"{line}\n")
    return 0


def build_engine(settings: Settings) -> Engine:
    """Return the engine that `settings.engine` names. Raises ConfigError, CheckpointError, EngineError."""
    config = MedMoEConfig.from_directory(settings.model)
    if settings.engine == "fake":
        from medmoe.server.engine.fake_engine import FakeEngine

        return FakeEngine(config, Prompt.from_directory(settings.model, config))
    # Here and not above: importing vLLM takes seconds and, with it, torch.
    from medmoe.server.engine.vllm_engine import VllmEngine

    return VllmEngine(settings, config)


def _build_verified(settings: Settings) -> Engine:
    """Return an engine that is built later. Raises what `check_signature`, `check_weights`, `build_engine` raise."""
    check_signature(settings)
    if settings.engine == "vllm":
        check_weights(settings.model)
    return build_engine(settings)


def _serve(settings: Settings) -> int:
    failed = False

    def on_failure() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    # A core dump of this process or of an engine would put images, questions and keys on the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tls = ServerTLS.of(settings)
    check_signature(settings)
    check_model_directory(settings.model)
    if settings.engine == "vllm":
        check_weights(settings.model)
        if built_for_cpu():
            check_memory(settings)
    engine = build_engine(settings)
    with (
        listening_sockets(settings.host, settings.port) as sockets,
        admin_socket(settings.admin_socket) as operators,
    ):
        _warn_of_an_open_network(settings)
        # A port of 0 has become a real one.
        settings = settings.model_copy(update={"port": sockets[0].getsockname()[1]})
        app = create_app(settings, engine, on_failure=on_failure, build=_build_verified)
        state: State = app.state.medmoe
        server = DrainingServer(
            server_config(app, settings, tls=tls),
            drain=lambda hurry: drain(state, hurry=hurry),
            beside=_beside(state, operators, tls),
            url=settings.url,
        )
        # Once drained, uvicorn raises the signal that stopped it again; a service that was told to stop has not failed.
        # The others mean nothing here, and would end the process.
        for handled in (*STOPPING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
            if signal.getsignal(handled) is not signal.SIG_IGN:
                signal.signal(handled, lambda *_: None)
        with plain_output_as_json():
            server.run(sockets)
    if state.unusable is not None:
        return _refuse(state.unusable)
    return ENGINE_FAILED if failed else 0 if server.started else UNUSABLE


def _warn_of_an_open_network(settings: Settings) -> None:
    """Log what the network can see or do."""
    if is_loopback(settings.host):
        return
    if settings.tls_certificate is None:
        log.warning(
            "images, keys and answers cross the network unencrypted: set MEDMOE_TLS_CERTIFICATE and MEDMOE_TLS_KEY, or"
            " keep this port behind something that speaks TLS"
        )
    if not settings.authenticates:
        log.warning(
            "anyone who reaches this port may ask: set MEDMOE_API_KEYS, or keep it behind something that authenticates"
        )


@contextlib.asynccontextmanager
async def _beside(state: State, operators: socket.socket | None, tls: ServerTLS | None) -> AsyncIterator[None]:
    """Serve the operators and follow the certificate while inside."""
    async with served_beside(admin_app(state), operators), contextlib.nullcontext() if tls is None else tls.renewed():
        yield


def server_config(
    app: FastAPI, settings: Settings, *, tls: ServerTLS | None = None, limits: ConnectionLimits | None = None
) -> uvicorn.Config:
    """Return uvicorn's configuration for the app of `create_app`."""
    protocol = EdgeProtocol.of(LoadShedder(app.state.medmoe, paths=costly_paths(app)), limits)
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        # Our own line per request replaces the access log, which would print raw paths.
        access_log=False,
        # On h11, the one implementation that bounds what a client may send as headers.
        http=protocol if tls is None else HandshakeProtocol.of(protocol, tls),
        # No route speaks WebSocket, and the library that would answer writes its requests' headers to the log.
        ws="none",
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        log_config=None,
        server_header=False,
        # Nothing reads the client's address or the scheme.
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        # What is inside has been waited for by then; this is for connections to close.
        timeout_graceful_shutdown=_CLOSE_SECONDS,
    )


def _refuse(reason: str) -> int:
    sys.stderr.write(f"error: cannot start: {reason}\n")
    return UNUSABLE


def _problems(error: ValidationError) -> str:
    """Return the names of the variables and what is wrong with them; values stay out, one of them may be a secret."""
    return "; ".join(
        # What concerns several settings names them itself.
        (f"{variable('.'.join(map(str, item['loc'])))}: " if item["loc"] else "")
        + item["msg"].removeprefix("Value error, ").replace("Input should", "it should", 1)
        for item in error.errors(include_input=False, include_url=False)
    )


if __name__ == "__main__":
    single_command(serve, "serve")(prog_name="medmoe serve")
