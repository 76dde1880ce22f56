"""`medmoe`: the one program. `convert` and `inspect` live here; serving and training bring their own sub-commands.

Those come by entry points of the group `medmoe.commands` and are imported only when they are called, so that this room
imports nobody and `medmoe --help` stays quick.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medmoe.model.errors import MedMoEError

GROUP = "medmoe.commands"
FAILED = 1
USAGE = 2

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def medmoe() -> None:
    """Train, convert, inspect and serve Med-MoE medical vision-language models.

    Research software, not a medical device.
    """


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Upstream checkpoint directory: Med-MoE, MoE-LLaVA or dense LLaVA.")],
    target: Annotated[Path, typer.Argument(help="Directory to write; must not exist.")],
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
    vision_heads: Annotated[int | None, typer.Option(help="Attention heads of a tower of no known name.")] = None,
    vision_activation: Annotated[
        Literal["gelu", "quick_gelu", "gelu_pytorch_tanh"] | None, typer.Option(help="Of a tower of no known name.")
    ] = None,
    vision_eps: Annotated[float | None, typer.Option(help="LayerNorm epsilon of a tower of no known name.")] = None,
    vision_image_size: Annotated[int | None, typer.Option(help="Pixels of a SigLIP tower of no known name.")] = None,
    eos_token: Annotated[str | None, typer.Option(help="Instead of the one the tokenizer declares.")] = None,
    pad_token: Annotated[str | None, typer.Option(help="Instead of upstream's for this backbone.")] = None,
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
        vision_heads=vision_heads,
        vision_activation=vision_activation,
        vision_eps=vision_eps,
        vision_image_size=vision_image_size,
        eos_token=eos_token,
        pad_token=pad_token,
        expert_domains=tuple(expert_domain or ()),
        verify=verify,
        overwrite=overwrite,
    )
    with typer.progressbar(length=1000, label="converting", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        report = convert_checkpoint(
            source, target, options, progress=lambda done, total: bar.update(1000 * done // total - bar.pos)
        )
    typer.echo("\n".join([*report.summary(), f"written to {target}"]))


@app.command()
def inspect(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    digests: Annotated[bool, typer.Option("--digests/--no-digests", help="SHA-256 of every file.")] = True,
) -> None:
    """Say what a checkpoint is: family, experts, parameters, licence. Reads no weights but the gates."""
    from medmoe.model.inspection import inspect_checkpoint

    found = inspect_checkpoint(checkpoint, digests=digests)
    typer.echo(found.to_json() if as_json else "\n".join(_lines(asdict(found))), nl=not as_json)


def _lines(fields: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in fields.items():
        label = f"{indent}{name.replace('_', ' ') if '.' not in name else name}"
        if isinstance(value, dict):
            lines += [label, *_lines(value, indent + "  ")] if value else []
        elif isinstance(value, tuple):
            lines.append(f"{label}: {', '.join(map(str, value)) or 'none'}")
        elif value is None:
            lines.append(f"{label}: none")
        elif isinstance(value, bool):
            lines.append(f"{label}: {'yes' if value else 'no'}")
        else:
            lines.append(f"{label}: {f'{value:,}' if isinstance(value, int) else value}")
    return lines


def _delegate(point: EntryPoint) -> Callable[[typer.Context], None]:
    """A command that loads `point` when it is called: a typer application, or a function that takes no arguments."""

    def command(context: typer.Context) -> None:
        target = point.load()
        program = f"medmoe {point.name}"
        if isinstance(target, typer.Typer):
            target(args=context.args, prog_name=program)
        elif context.args and context.args != ["--help"]:
            typer.echo(f"{program} takes no arguments: {' '.join(context.args)}", err=True)
            raise typer.Exit(USAGE)
        elif context.args:
            typer.echo(f"Usage: {program}\n\n  {target.__doc__}")
        else:
            raise typer.Exit(target())

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
    """Run the program. An error of ours is one line on standard error and exit status 1."""
    try:
        app(prog_name="medmoe")
    except MedMoEError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
