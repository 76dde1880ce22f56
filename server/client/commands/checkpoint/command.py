"""`medmoe checkpoint`: load, compare, activate, roll back and unload checkpoints of a running service."""

import time
from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.answers.checkpoint import CheckpointStatus, Comparison, LoadedCheckpoint
from medmoe.client.commands.checkpoint.question_file import read_questions
from medmoe.client.commands.connection import JsonOption, ServiceOptions, with_option_groups
from medmoe.client.commands.request_options import refuse_options
from medmoe.client.commands.terminal import as_json, percent, safe, table
from medmoe.client.errors import ClientError
from medmoe.model.cli import command_group

app = command_group("Change the checkpoint of a running service, which names their directory (MEDMOE_CHECKPOINTS_DIR).")

_PAUSE_SECONDS = 1.0
_FAILED = 1


@app.command()
@with_option_groups()
def load(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a checkpoint in the service's directory of checkpoints.")
    ],
    questions: Annotated[
        Path | None,
        typer.Option(
            help="JSON Lines that both checkpoints are asked: `image` (a file) and `question` or `labels` in each."
        ),
    ] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Activate it once it is ready and compared.")] = False,
    min_agreement: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="With --activate and --questions: smallest share of equal answers."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the checkpoint is ready and compared.")] = True,
    json_: JsonOption = False,
    *,
    service: ServiceOptions,
) -> None:
    """Load a checkpoint beside the active one. The exit status is 1 if that, or its activation, fails."""
    if not (activate and questions):
        refuse_options({"min_agreement": min_agreement}, "without --activate and --questions")
    asked = None if questions is None else read_questions(questions)
    with service.client() as client:
        found = client.load_checkpoint(name, questions=asked, activate=activate, min_agreement=min_agreement)
        while wait and not found.is_settled:
            time.sleep(_PAUSE_SECONDS)
            found = client.checkpoint_status()
    _print(found, json_)
    if found.standby is not None and found.standby.state == "failed":
        raise typer.Exit(_FAILED)
    if activate and wait and found.standby is not None and not found.standby.previous:
        raise ClientError(f"{name} is loaded and not activated; activate it with `medmoe checkpoint activate`")


@app.command()
@with_option_groups()
def status(json_: JsonOption = False, *, service: ServiceOptions) -> None:
    """Print the active checkpoint, the one beside it, and how far their answers differ."""
    with service.client() as client:
        _print(client.checkpoint_status(), json_)


@app.command()
@with_option_groups()
def activate(json_: JsonOption = False, *, service: ServiceOptions) -> None:
    """Send new requests to the loaded checkpoint; the one before stands by for a rollback."""
    with service.client() as client:
        _print(client.activate_checkpoint(), json_)


@app.command()
@with_option_groups()
def rollback(json_: JsonOption = False, *, service: ServiceOptions) -> None:
    """Send new requests to the checkpoint that was active before."""
    with service.client() as client:
        _print(client.rollback_checkpoint(), json_)


@app.command()
@with_option_groups()
def unload(
    json_: JsonOption = False,
    *,
    service: ServiceOptions,
) -> None:
    """End the checkpoint beside the active one once it has answered its requests, and free its memory."""
    with service.client() as client:
        _print(client.unload_checkpoint(), json_)


def _print(found: CheckpointStatus, json_: bool) -> None:
    if json_:
        typer.echo(as_json(found))
        return
    rows = [("active", found.active)]
    if found.standby is not None:
        rows.append(("previous" if found.standby.previous else "standby", found.standby))
    headers = ["", "checkpoint", "state", "model", "weights", "requests"]
    typer.echo(table(headers, [_row(role, one) for role, one in rows]))
    for _, one in rows:
        if one.reason is not None:
            typer.echo(safe(f"{one.checkpoint}: {one.reason}"))
    if found.comparison is not None:
        typer.echo(safe(_sentence(found.comparison)))
    typer.echo(safe(f"available: {', '.join(found.available) or 'none'}"))


def _row(role: str, one: LoadedCheckpoint) -> list[str]:
    return [
        role,
        one.checkpoint,
        one.state,
        one.pinned_model or one.model or "-",
        (one.weights_sha256 or "-")[:12],
        str(one.requests),
    ]


def _sentence(found: Comparison) -> str:
    said = f"{found.checkpoint} against {found.against}: {found.compared} of {found.questions} questions compared"
    if found.agreement is not None:
        said += f", {percent(found.agreement)} of the answers equal, {found.changed_abstentions} abstentions changed"
    if found.mean_probability_difference is not None:
        said += f", mean difference of probabilities {found.mean_probability_difference:.4f}"
    if found.failed:
        said += f", {len(found.failed)} failed"
    return said
