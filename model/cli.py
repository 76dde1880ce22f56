"""Run the `medmoe` program: find its sub-commands, import them when they are called, and report errors."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from medmoe.model.errors import MedMoEError
from medmoe.model.files.terminal_safe import MAX_MESSAGE, terminal_safe

FAILED = 1
DEBUG_VARIABLE = "MEDMOE_DEBUG"
"""If set, an unexpected error shows its traceback."""


@dataclass(frozen=True, slots=True)
class Command:
    """Describe a sub-command without importing it."""

    target: str
    """`module:function`; the function's parameters are the options."""
    help: str
    extra: str | None = None
    """Extra of the package that installs what the command imports."""


COMMANDS = {
    "serve": Command("medmoe.server.__main__:main", "Serve a checkpoint over HTTP.", "cpu"),
    "ask": Command("medmoe.client.commands.ask:ask", "Ask a service a question about an image."),
    "classify": Command("medmoe.client.commands.classify:classify", "Ask a service how likely each label is."),
    "batch": Command("medmoe.client.commands.batch:batch", "Ask a service about many images; resumable."),
    "stats": Command("medmoe.client.commands.stats:stats", "Show which experts a service's tokens went to."),
    "bench": Command("medmoe.client.commands.bench:bench", "Measure a service's throughput and latency."),
    "train": Command("medmoe.training.__main__:train", "Train a checkpoint or an adapter by a recipe.", "train"),
    "eval": Command("medmoe.training.evaluation.__main__:evaluate", "Score a checkpoint or a service.", "train"),
    "calibrate": Command(
        "medmoe.training.evaluation.calibration.calibrate:calibrate", "Calibrate a checkpoint's confidence.", "train"
    ),
    "ablate": Command("medmoe.training.ablation.__main__:ablate", "Compare recipes on one budget.", "train"),
    "finetune": Command(
        "medmoe.training.finetune.__main__:finetune", "Train a checkpoint on images of your own.", "train"
    ),
    "manifest": Command("medmoe.training.data.__main__:manifest", "Count, hash and check datasets.", "train"),
    "convert": Command("medmoe.model.commands.convert:convert", "Convert an upstream checkpoint.", "train"),
    "export-peft": Command(
        "medmoe.training.lora.export_peft:export_peft", "Export an adapter as a PEFT LoRA.", "train"
    ),
    "inspect": Command("medmoe.model.commands.inspect:inspect", "Describe a checkpoint.", "train"),
}

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medmoe {version('medmoe')}")
        raise typer.Exit


@app.callback()
def medmoe(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, convert, inspect and serve Med-MoE medical vision-language models.

    Research software, not a medical device.
    """


def single_command(function: Callable[..., Any], name: str | None = None) -> typer.Typer:
    """Return an application with one command, which looks like every other command of `medmoe`."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    single.command(name)(function)
    return single


def _delegate(name: str, command: Command) -> Callable[[typer.Context], None]:
    def delegate(context: typer.Context) -> None:
        module, _, attribute = command.target.partition(":")
        try:
            target = getattr(import_module(module), attribute)
            if name == "serve":
                raise typer.Exit(target(context.args))
            single_command(target, name)(args=context.args, prog_name=f"medmoe {name}")
        except ModuleNotFoundError as error:
            if command.extra is None or (error.name or "").startswith("medmoe"):
                raise
            raise MedMoEError(
                f"medmoe {name} needs the package {error.name}: install the extra {command.extra} "
                f"(`pip install '.[{command.extra}]'` in the repository, or `make install` for all of them)"
            ) from error

    return delegate


for _name, _command in COMMANDS.items():
    app.command(
        _name,
        help=_command.help,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(_delegate(_name, _command))


def run(program: typer.Typer, name: str) -> NoReturn:
    """Run an application. Any error becomes one line on standard error and exit status 1."""
    try:
        program(prog_name=name)
    except MedMoEError as error:
        _fail(str(error))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Rust libraries' panics are no Exceptions
        if os.environ.get(DEBUG_VARIABLE):
            raise
        reason = f"{type(error).__name__} {error}".rstrip()
        _fail(f"internal error, please report it ({DEBUG_VARIABLE}=1 shows where it happened): {reason}")
    sys.exit()


def main() -> None:
    """Run `medmoe`."""
    run(app, "medmoe")


def _fail(message: str) -> NoReturn:
    typer.echo(terminal_safe(f"error: {message}", limit=MAX_MESSAGE), err=True)
    sys.exit(FAILED)


if __name__ == "__main__":
    main()
