"""Say what a batch asks again, and how far it came, when it is finished and when it is interrupted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from medmoe.client.batch.replaced_images import with_another_image
from medmoe.client.batch.runner import Load
from medmoe.client.batch.task import Task
from medmoe.client.commands.terminal import as_json, note
from medmoe.client.errors import ClientError, InvalidInput
from medmoe.model.cli import INTERRUPTED

_MANY = 1000
"""Answers whose images take seconds to compare."""


def asked_again(tasks: Sequence[Task], answered: Mapping[str, str], *, load: Load, output: Path) -> frozenset[str]:
    """Return what `with_another_image` returns, and tell the number."""
    if len(answered) > _MANY:
        note(f"comparing the images with those of {len(answered)} answers in {output}")
    found = with_another_image(tasks, answered, load=load)
    if found:
        note(f"{output} has answers about other images of the same name; asked again: {len(found)}")
    return found


@contextmanager
def resumable(answered: Callable[[], str]) -> Iterator[None]:
    """Add what is `answered` to an error or an interruption that ends the batch, and that it can be continued."""
    try:
        yield
    except InvalidInput:
        raise
    except ClientError as error:
        raise ClientError(f"{error}; {answered()}; run again to continue") from error
    except KeyboardInterrupt:
        note(f"interrupted: {answered()}; run again to continue")
        raise typer.Exit(INTERRUPTED) from None


def print_counts(counts: Mapping[str, int], *, json_: bool) -> None:
    """Print the number of lines, of those that were asked now, and of those with errors."""
    words = f"{counts['lines']} lines, {counts['asked']} asked now, {counts['errors']} with errors"
    typer.echo(as_json(counts) if json_ else words)


def require_no_errors(counts: Mapping[str, int], output: Path) -> None:
    """Raise ClientError when a line has an error."""
    if counts["errors"]:
        raise ClientError(
            f"{counts['errors']} of {counts['lines']} lines have errors, which {output} names; "
            "--retry-errors asks them again"
        )
