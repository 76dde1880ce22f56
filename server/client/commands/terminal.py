"""What is printed: text of a service made harmless for terminals, tables, JSON."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import typer

from medmoe.client.answers.base import Message
from medmoe.model.files.terminal_safe import terminal_safe


def safe(text: str) -> str:
    """Line by line what may be printed; the words are a model's, and the service anyone's."""
    return "\n".join(terminal_safe(line, limit=len(line)) for line in text.split("\n"))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of one width, the first to the left, numbers to the right."""
    lines = [list(map(safe, line)) for line in (headers, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def as_json(value: Any) -> str:
    """One line, ASCII: whatever a terminal would act on is escaped."""
    return json.dumps(value.model_dump(mode="json") if isinstance(value, Message) else value)


def note(text: str) -> None:
    """To standard error, which leaves standard output to the answer."""
    typer.echo(safe(text), err=True)


def watched() -> bool:
    """Whether somebody sees a progress bar."""
    return sys.stderr.isatty()
