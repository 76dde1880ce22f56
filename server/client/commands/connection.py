"""Define the options that name the service, create clients from them, and give commands groups of options."""

import inspect
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from medmoe.client.client import Client
from medmoe.client.commands.terminal import note
from medmoe.client.errors import BadRequest, ClientError, InvalidInput
from medmoe.client.transport.address import KEY_VARIABLE, LOCAL, URL_VARIABLE
from medmoe.client.transport.key_file import KeyFile
from medmoe.client.transport.retry import Retry
from medmoe.model.cli import with_headings

UrlOption = Annotated[str, typer.Option(envvar=URL_VARIABLE, help="Address of the service.")]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        help=f"File with the API key or token, read for each request; by default {KEY_VARIABLE} is sent, if it is set."
    ),
]
TimeoutOption = Annotated[float, typer.Option(min=0.1, help="Seconds for an answer, including retries.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Command = Callable[..., None]

_NOTE_SECONDS = 5.0
"""Pause between two notes about retries, however many requests are waiting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceOptions:
    """Hold the options that name the service."""

    HEADINGS: ClassVar = {"Service": "url token_file timeout"}
    """For `with_headings`."""

    url: UrlOption = LOCAL
    token_file: TokenFileOption = None
    timeout: TimeoutOption = 120.0

    def client(self, retry: Retry | None = None) -> Client:
        """Create a client. Without `retry` it fails at once if nothing listens, and reports its other retries.

        Raises InvalidInput for an unreadable key file, and typer.BadParameter for an invalid address or key.
        """
        with usage_errors():
            retry = retry or reported(Retry(unreachable=False))
            return Client(self.url, api_key=api_key(self.token_file), timeout=self.timeout, retry=retry)


def with_option_groups(*, without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Replace each parameter of a command that is a dataclass with HEADINGS by an option for each field.

    Fields in `without` have no option. An option whose value the service refuses is a usage error, like one that is
    refused here.
    """

    def flatten(command: Command) -> Command:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        groups = {name: own.pop(name).annotation for name in [*own] if is_dataclass(own[name].annotation)}
        fields = {name: inspect.signature(group, eval_str=True).parameters for name, group in groups.items()}
        shared = {name: one for group in fields.values() for name, one in group.items() if name not in without}
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own.values(), *shared.values())]

        @wraps(command)
        def flat(**given: Any) -> None:
            made = {
                name: group(**{field: given.pop(field) for field in fields[name] if field in shared})
                for name, group in groups.items()
            }
            try:
                command(**given, **made)
            except BadRequest as error:
                if error.code == "invalid_field" and error.param not in (None, "image"):
                    raise typer.BadParameter(str(error)) from error
                raise

        del flat.__wrapped__
        flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        flat.__annotations__ = {one.name: one.annotation for one in parameters}
        headings: dict[str, str] = {}
        for group in groups.values():
            headings |= group.HEADINGS
        return with_headings(headings)(flat)

    return flatten


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
