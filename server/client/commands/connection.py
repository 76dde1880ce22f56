"""Define the options that name the service, and create clients from them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.client import Client
from medmoe.client.commands.terminal import note
from medmoe.client.errors import ClientError, InvalidInput
from medmoe.client.transport.address import KEY_VARIABLE, URL_VARIABLE
from medmoe.client.transport.key_file import KeyFile
from medmoe.client.transport.retry import Retry

SERVICE = "Service"
"""Heading of options."""

UrlOption = Annotated[str, typer.Option(envvar=URL_VARIABLE, help="Address of the service.", rich_help_panel=SERVICE)]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        help=f"File with the API key or token, read for each request; by default {KEY_VARIABLE} is sent, if it is set.",
        rich_help_panel=SERVICE,
    ),
]
TimeoutOption = Annotated[
    float, typer.Option(min=0.1, help="Seconds for an answer, including retries.", rich_help_panel=SERVICE)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_NOTE_SECONDS = 5.0
"""Pause between two notes about retries, however many requests are waiting."""


def create_client(url: str, token_file: Path | None, timeout: float) -> Client:
    """Create a client that fails at once if nothing listens at `url`, and reports its other retries.

    Raises InvalidInput for an unreadable key file, and typer.BadParameter for an invalid address or key.
    """
    with usage_errors():
        return Client(url, api_key=api_key(token_file), timeout=timeout, retry=reported(Retry(unreachable=False)))


def api_key(token_file: Path | None) -> Path | None:
    """Return the file that the client reads its key from. Raises InvalidInput for one that it cannot."""
    if token_file is not None:
        try:
            KeyFile(token_file)
        except ValueError as error:
            raise InvalidInput(str(error)) from error
    return token_file


def reported(retry: Retry) -> Retry:
    """Return `retry` with a note on standard error for each retry, or one in a few seconds if there are many."""
    return replace(retry, notify=_notifier())


def _notifier() -> Callable[[ClientError, float], None]:
    next_note = 0.0

    def notify(error: ClientError, pause: float) -> None:
        nonlocal next_note
        if time.monotonic() >= next_note:
            next_note = time.monotonic() + _NOTE_SECONDS
            note(f"{error}; trying again in {pause:.1f} s")

    return notify


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a ValueError about an option into typer.BadParameter."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
