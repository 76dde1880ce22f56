"""Run the `medmoe` program: find its sub-commands, import them when they are called, and report errors.

Exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted. Every error is one line on standard error.
"""

import errno
import io
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from medmoe.model.errors import MedMoEError
from medmoe.model.files.terminal_safe import MAX_MESSAGE, terminal_safe

FAILED = 1
INTERRUPTED = 130
DEBUG_VARIABLE = "MEDMOE_DEBUG"
"""If set, an unexpected error shows its traceback."""
_MENDABLE = frozenset({
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EIO, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG,
    errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS, errno.ESTALE,
})  # fmt: skip
"""Errors of the file system that the user can mend."""
_FULL = frozenset({errno.EDQUOT, errno.ENOSPC})


@dataclass(frozen=True, slots=True)
class Command:
    """Describe a sub-command without importing it."""

    target: str
    """`module:function`, whose parameters are the options, or `module:group`, a `command_group`."""
    help: str
    extra: str | None = None
    """Extra of the package that installs what the command imports."""


COMMANDS = {
    "serve": Command("medmoe.server.__main__:serve", "Serve a checkpoint over HTTP.", "cpu"),
    "audit": Command("medmoe.server.audit.command:app", "Check or export a service's audit trail.", "cpu"),
    "ask": Command("medmoe.client.commands.ask:ask", "Ask a service a question about an image."),
    "classify": Command("medmoe.client.commands.classify:classify", "Ask a service how likely each label is."),
    "decide": Command("medmoe.client.commands.decide:decide", "Ask a service closed questions about an image."),
    "explain": Command("medmoe.client.commands.explain.command:explain", "Ask a service where an answer comes from."),
    "series": Command("medmoe.client.commands.series.command:series", "Ask a service about the slices of a series."),
    "render": Command("medmoe.client.commands.render:render", "Write images as a service shows them, as PNG."),
    "query": Command("medmoe.client.commands.query:query", "List the images of a service's DICOMweb sources."),
    "watch": Command("medmoe.client.commands.watch:watch", "Ask about new images of a service's DICOMweb sources."),
    "batch": Command("medmoe.client.commands.batch.command:batch", "Ask a service about many images; resumable."),
    "checkpoint": Command(
        "medmoe.client.commands.checkpoint.command:app", "Change the checkpoint of a running service."
    ),
    "stats": Command("medmoe.client.commands.stats:stats", "Show which experts a service's tokens went to."),
    "bench": Command("medmoe.client.commands.bench:bench", "Measure a service's throughput and latency."),
    "train": Command("medmoe.training.__main__:train", "Train a checkpoint or an adapter by a recipe.", "train"),
    "eval": Command("medmoe.training.evaluation.__main__:evaluate", "Score a checkpoint or a service.", "train"),
    "calibrate": Command(
        "medmoe.training.evaluation.calibration.calibrate:calibrate", "Calibrate a checkpoint's confidence.", "train"
    ),
    "reference": Command(
        "medmoe.training.unlike_training.__main__:reference",
        "Tell which images are unlike the training images.",
        "train",
    ),
    "ablate": Command("medmoe.training.ablation.__main__:ablate", "Compare recipes on one budget.", "train"),
    "forgetting": Command(
        "medmoe.training.forgetting.__main__:forgetting", "Measure what methods forget of old tasks.", "train"
    ),
    "finetune": Command(
        "medmoe.training.finetune.__main__:finetune", "Train a checkpoint on images of your own.", "train"
    ),
    "manifest": Command("medmoe.training.data.__main__:manifest", "Count, hash and check datasets.", "train"),
    "convert": Command("medmoe.model.commands.convert:convert", "Convert an upstream checkpoint.", "train"),
    "export-peft": Command(
        "medmoe.training.lora.export_peft:export_peft", "Export an adapter as a PEFT LoRA.", "train"
    ),
    "inspect": Command("medmoe.model.commands.inspect:inspect", "Describe a checkpoint.", "train"),
    "sign": Command("medmoe.model.commands.sign:sign", "Sign a checkpoint.", "train"),
    "verify": Command("medmoe.model.commands.sign:verify", "Verify a signed checkpoint.", "train"),
}


class _Reporting(TyperCommand):
    """Report every error of a command as one line."""

    def main(self, *arguments: Any, **options: Any) -> NoReturn:
        _run(super().main, *arguments, **options)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the options, and those that `with_headings` has put under others."""
        headings = getattr(self.callback, "headings", {})
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                is_argument = parameter.param_type_name == "argument"
                heading = "Arguments" if is_argument else headings.get(parameter.name, "Options")
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            raise _missing_package(error, command=self.name or "") from error
        except KeyboardInterrupt:
            _fail("interrupted", status=INTERRUPTED)


class _Delegating(TyperCommand):
    """Leave all arguments to another program, `--` too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return args


class _ReportingGroup(TyperGroup):
    """Report every error of a program with sub-commands as one line."""

    def main(self, *arguments: Any, **options: Any) -> NoReturn:
        _run(super().main, *arguments, **options)


def _run(program: Callable[..., Any], *arguments: Any, **options: Any) -> NoReturn:
    """Run a program, and exit with its status."""
    try:
        status = program(*arguments, **{**options, "standalone_mode": False})
    except typer.TyperException as error:
        _fail(_usage(error), status=error.exit_code)
    except typer.Abort:
        _fail("interrupted", status=INTERRUPTED)
    except MedMoEError as error:
        _fail(str(error))
    except SystemExit:
        raise
    except OSError as error:
        if error.errno not in _MENDABLE:
            _report(error)
        if error.errno in _FULL and error.filename is None:
            _fail(f"{error.strerror}: make room and run the command again")
        _fail(f"{error.filename or 'a file'}: {error.strerror}")
    except BaseException as error:  # Rust libraries' panics are no Exceptions
        # Libraries that write tensors raise errors of their own.
        if (reason := os.strerror(errno.ENOSPC)) in str(error):
            _fail(f"{reason}: make room and run the command again")
        _report(error)
    sys.exit(status if isinstance(status, int) else 0)


def _usage(error: typer.TyperException) -> str:
    """Describe wrong usage, and name the nearest option and the help."""
    text = error.format_message().removeprefix("Invalid value: ").replace("Value error, ", "").rstrip(".")
    if nearest := getattr(error, "possibilities", None):
        text = f"{error.message}; did you mean {' or '.join(sorted(nearest))}?"
    context = getattr(error, "ctx", None)
    if not text[1:2].isupper():
        # A name such as MEDMOE_URL keeps its letters.
        text = text[:1].lower() + text[1:]
    if text.startswith("got unexpected extra argument"):
        text += "; words with spaces need quotes, and options their --names"
    return text if context is None else f"{text} (see {context.command_path} --help)"


def _report(error: BaseException) -> NoReturn:
    """Report an error that is a fault of this program."""
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    reason = f"{type(error).__name__} {error}".rstrip()
    _fail(f"internal error, please report it ({DEBUG_VARIABLE}=1 shows where it happened): {reason}")


def _fail(message: str, *, status: int = FAILED) -> NoReturn:
    typer.echo(terminal_safe(f"error: {message}", limit=MAX_MESSAGE), err=True)
    sys.exit(status)


def _missing_package(error: ModuleNotFoundError, *, command: str) -> Exception:
    """Return an error that names the extra to install, or `error` itself when no extra brings the package."""
    extra = COMMANDS[command].extra if command in COMMANDS else None
    if extra is None or (error.name or "").partition(".")[0] == "medmoe":
        return error
    return MedMoEError(
        f"medmoe {command} needs the package {error.name}: install the extra {extra} "
        f"(`pip install '.[{extra}]'` in the repository, or `make install` for all of them)"
    )


app = typer.Typer(add_completion=False, cls=_ReportingGroup, pretty_exceptions_enable=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medmoe {version('medmoe')}")
        raise typer.Exit


def _print_help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.callback(invoke_without_command=True)
def medmoe(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, convert, inspect and serve Med-MoE medical vision-language models.

    Research software, not a medical device.
    """
    _print_help(context)


def with_headings(headings: Mapping[str, str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let the help of a command show options under headings, each with the names of its options, by spaces apart."""

    def marked(command: Callable[..., None]) -> Callable[..., None]:
        by_option = {name: heading for heading, names in headings.items() for name in names.split()}
        command.headings = getattr(command, "headings", {}) | by_option  # type: ignore[attr-defined]
        return command

    return marked


def single_command(function: Callable[..., Any], name: str | None = None) -> typer.Typer:
    """Return a program with one command, which looks like every other command of `medmoe`."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    single.command(name, cls=_Reporting)(function)
    return single


class _CommandGroup(typer.Typer):
    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        return super().command(name, **{"cls": _Reporting, **options})


def command_group(help_text: str) -> typer.Typer:
    """Return a program whose commands look like those of `medmoe`."""
    group = _CommandGroup(
        add_completion=False, cls=_ReportingGroup, pretty_exceptions_enable=False, rich_markup_mode=None, help=help_text
    )
    group.callback(invoke_without_command=True)(_print_help)
    return group


def _delegate(name: str, command: Command) -> Callable[[typer.Context], None]:
    def delegate(context: typer.Context) -> None:
        module, _, attribute = command.target.partition(":")
        try:
            target = getattr(import_module(module), attribute)
            program = target if isinstance(target, typer.Typer) else single_command(target, name)
            program(args=context.args, prog_name=f"medmoe {name}")
        except ModuleNotFoundError as error:
            raise _missing_package(error, command=name) from error

    return delegate


for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.help, add_help_option=False, cls=_Delegating)(_delegate(_name, _command))


def main() -> None:
    """Run `medmoe`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An answer may hold characters that the terminal's encoding has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="medmoe")


if __name__ == "__main__":
    main()
