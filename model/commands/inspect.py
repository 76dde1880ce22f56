"""`medmoe inspect`: describe a checkpoint."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from medmoe.model.files.terminal_safe import listed, terminal_safe

_MISFIT = 1
_SHOWN = 16


def inspect(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    digests: Annotated[bool, typer.Option("--digests/--no-digests", help="Print the SHA-256 of every file.")] = True,
) -> None:
    """Describe a checkpoint: family, experts, parameters, licence. Of the weights only the gates are read.

    The exit status is 1 if the tensors or the adapter do not fit config.json.
    """
    from medmoe.model.inspection.inspect import inspect_checkpoint

    found = inspect_checkpoint(checkpoint, digests=digests)
    typer.echo(found.to_json() if as_json else "\n".join(_lines(asdict(found))), nl=not as_json)
    if not found.fits_config:
        raise typer.Exit(_MISFIT)


def _lines(fields: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in fields.items():
        label = f"{indent}{terminal_safe(name.replace('_', ' ') if '.' not in name else name)}"
        if isinstance(value, dict):
            lines += [label, *_lines(value, indent + "  ")] if value else []
        elif isinstance(value, tuple):
            lines.append(f"{label}: {_items(value)}")
        elif value is None:
            lines.append(f"{label}: none")
        elif isinstance(value, bool):
            lines.append(f"{label}: {'yes' if value else 'no'}")
        else:
            lines.append(f"{label}: {f'{value:,}' if isinstance(value, int) else terminal_safe(str(value))}")
    return lines


def _items(values: tuple[Any, ...]) -> str:
    """Join all numbers, or the first few strings, made safe for a terminal."""
    if all(isinstance(value, int) for value in values):
        return ", ".join(map(str, values)) or "none"
    return listed(list(map(str, values)), shown=_SHOWN) or "none"
