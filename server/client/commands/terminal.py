"""Print text of a service safely, as tables or as JSON."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import typer

from medmoe.client.answers.base import Message
from medmoe.client.answers.vqa import UnlikeTraining
from medmoe.model.files.terminal_safe import terminal_safe

ABSTAINED = "ABSTAINED: not to be relied on"
_PROGRESS_SECONDS = 10.0


def safe(text: str) -> str:
    """Escape every character that a terminal would act on, and keep line breaks."""
    return "\n".join(terminal_safe(line, limit=len(line)) for line in text.split("\n"))


def percent(share: float) -> str:
    """Return a share in percent; 0 and 100 only where it is exactly that."""
    value = 100 * share
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99.9 < value < 100:
        return "> 99.9 %"
    return f"{value:.1f}".removesuffix(".0") + " %"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns, the first to the left and the others to the right."""
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
    """Return one line of ASCII, with control characters escaped."""
    return json.dumps(value.model_dump(mode="json") if isinstance(value, Message) else value)


def note(text: str) -> None:
    """Print to standard error."""
    typer.echo(safe(text), err=True)


def note_unlike_training(found: UnlikeTraining | None) -> None:
    """Warn of an answer about an image that is flagged as unlike the training images."""
    if found is not None and found.flagged:
        note("The image is unlike the training images, so the answer may be worth nothing.")


def has_progress_bar() -> bool:
    """Return whether standard error is a terminal."""
    return sys.stderr.isatty()


def note_progress() -> Callable[[str, bool], None]:
    """Return a function that shows a text, and whether it is the last one, on one line of standard error.

    Where that is no terminal, texts are lines, one in ten seconds.
    """
    shown: float | None = None
    width = 0

    def show(text: str, last: bool) -> None:
        nonlocal shown, width
        if has_progress_bar():
            typer.echo("\r" + safe(text).ljust(width), err=True, nl=last)
            width = len(text)
        elif last or shown is None or time.monotonic() >= shown + _PROGRESS_SECONDS:
            shown = time.monotonic()
            note(text)

    return show
