"""`medmoe`: the one program. `convert` and `inspect` live here; serving and training bring their own sub-commands.

Those come by entry points of the group `medmoe.commands` and are imported only when they are called, so that this room
imports nobody and `medmoe --help` stays quick.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from medmoe.model.errors import MedMoEError
from medmoe.model.files.terminal_safe import MAX_MESSAGE, listed, terminal_safe

GROUP = "medmoe.commands"
FAILED = 1
DEBUG_VARIABLE = "MEDMOE_DEBUG"
"""Set to anything, an error that is none of ours shows where it happened."""

_SHOWN = 16

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def medmoe() -> None:
    """Train, convert, inspect and serve Med-MoE medical vision-language models.

    Research software, not a medical device.
    """


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Upstream checkpoint directory: Med-MoE, MoE-LLaVA or dense LLaVA.")],
    target: Annotated[Path, typer.Argument(help="Directory to write; must be absent or empty.")],
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Of the weights written; auto is what most of them have. Float32 gates stay float32."),
    ] = "auto",
    name: Annotated[str | None, typer.Option(help="The model's name in answers; else the target's.")] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Experts a token goes through, where config.json is silent.")
    ] = None,
    image_mode: Annotated[
        Literal["pad", "crop"] | None, typer.Option(help="Instead of what image_aspect_ratio says.")
    ] = None,
    vision_tower: Annotated[
        Path | None, typer.Option(help="transformers directory of the CLIP or SigLIP tower, if SOURCE has no tower.")
    ] = None,
    vision_layers: Annotated[
        int | None, typer.Option(help="Blocks that a tower of no known name has in all, used or not.")
    ] = None,
    vision_heads: Annotated[int | None, typer.Option(help="Attention heads of a tower of no known name.")] = None,
    vision_activation: Annotated[
        Literal["gelu", "quick_gelu", "gelu_pytorch_tanh"] | None, typer.Option(help="Of a tower of no known name.")
    ] = None,
    vision_eps: Annotated[float | None, typer.Option(help="LayerNorm epsilon of a tower of no known name.")] = None,
    vision_image_size: Annotated[int | None, typer.Option(help="Pixels of a SigLIP tower of no known name.")] = None,
    eos_token: Annotated[str | None, typer.Option(help="Instead of the one the tokenizer declares.")] = None,
    pad_token: Annotated[str | None, typer.Option(help="Instead of upstream's for this backbone.")] = None,
    cut_rows: Annotated[
        bool, typer.Option("--cut-rows", help="Cut the embedding to the tokenizer even by more than padding explains.")
    ] = False,
    expert_domain: Annotated[
        list[str] | None, typer.Option(help="What each expert was trained for, in order; repeat it.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the safetensors with the .bin beside them.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a checkpoint at TARGET.")] = False,
) -> None:
    """Convert an upstream checkpoint, tensor by tensor, and report what became of each."""
    # Here and not above: torch takes seconds.
    from medmoe.model.conversion.converter import convert as convert_checkpoint
    from medmoe.model.conversion.options import Options

    options = Options(
        dtype=dtype,
        name=name,
        top_k=top_k,
        image_mode=image_mode,
        vision_tower=vision_tower,
        vision_layers=vision_layers,
        vision_heads=vision_heads,
        vision_activation=vision_activation,
        vision_eps=vision_eps,
        vision_image_size=vision_image_size,
        eos_token=eos_token,
        pad_token=pad_token,
        cut_rows=cut_rows,
        expert_domains=tuple(expert_domain or ()),
        verify=verify,
        overwrite=overwrite,
    )
    with (
        _ended_by_signals(),
        typer.progressbar(length=1000, label="converting", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar,
    ):
        report = convert_checkpoint(
            source, target, options, progress=lambda done, total: bar.update(1000 * done // total - bar.pos)
        )
    typer.echo("\n".join([*report.summary(), f"written to {terminal_safe(str(target), limit=MAX_MESSAGE)}"]))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A terminal that hangs up, or a polite kill, ends the command as an error does: what it staged is removed."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    # nohup ignores SIGHUP on purpose.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command()
def inspect(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    digests: Annotated[bool, typer.Option("--digests/--no-digests", help="SHA-256 of every file.")] = True,
) -> None:
    """Say what a checkpoint is: family, experts, parameters, licence. Reads no weights but the gates.

    Exit status 1 also when its tensors or its adapter do not fit config.json.
    """
    from medmoe.model.inspection.inspect import inspect_checkpoint

    found = inspect_checkpoint(checkpoint, digests=digests)
    typer.echo(found.to_json() if as_json else "\n".join(_lines(asdict(found))), nl=not as_json)
    if not found.fits_config:
        raise typer.Exit(FAILED)


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
    """Numbers are the checkpoint's layers, of which there are never too many; words are somebody's."""
    if all(isinstance(value, int) for value in values):
        return ", ".join(map(str, values)) or "none"
    return listed(list(map(str, values)), shown=_SHOWN) or "none"


def _delegate(point: EntryPoint) -> Callable[[typer.Context], None]:
    """A command that loads `point` when it is called: a typer application, or a function of the arguments."""

    def command(context: typer.Context) -> None:
        target = point.load()
        program = f"medmoe {point.name}"
        if isinstance(target, typer.Typer):
            target(args=context.args, prog_name=program)
        else:
            raise typer.Exit(target(context.args))

    return command


def _add_commands_of_other_rooms() -> None:
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        app.command(
            point.name,
            help=f"See `medmoe {point.name} --help`.",
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )(_delegate(point))


_add_commands_of_other_rooms()


def main() -> None:
    """Run the program. An error is one line on standard error and exit status 1, whoever raised it."""
    try:
        app(prog_name="medmoe")
    except MedMoEError as error:
        _fail(str(error))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the Rust libraries' panics are no Exceptions
        if os.environ.get(DEBUG_VARIABLE):
            raise
        reason = f"{type(error).__name__} {error}".rstrip()
        _fail(f"internal error, please report it ({DEBUG_VARIABLE}=1 shows where it happened): {reason}")


def _fail(message: str) -> NoReturn:
    typer.echo(terminal_safe(f"error: {message}", limit=MAX_MESSAGE), err=True)
    sys.exit(FAILED)


if __name__ == "__main__":
    main()
