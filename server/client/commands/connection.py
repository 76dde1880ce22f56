"""What every command says about the service that it asks, and how it is reached."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.client import Client
from medmoe.client.errors import InvalidInput
from medmoe.client.transport.address import KEY_VARIABLE

Url = Annotated[str, typer.Option(help="Where the service answers.")]
TokenFile = Annotated[Path | None, typer.Option(help=f"File with the API key; else {KEY_VARIABLE} is sent, if set.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds for an answer, attempts and pauses included.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def client_of(url: str, token_file: Path | None, timeout: float) -> Client:
    """Raises InvalidInput, and typer.BadParameter for an address or a key that cannot be one."""
    with usage():
        return Client(url, api_key=api_key(token_file), timeout=timeout)


def api_key(token_file: Path | None) -> str | None:
    """What the file holds; without one the environment is asked, never the command line. Raises InvalidInput."""
    if token_file is None:
        return None
    try:
        return token_file.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"{token_file} cannot be read") from error


@contextmanager
def usage() -> Iterator[None]:
    """What a client finds wrong with its address or its key was typed wrong."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
