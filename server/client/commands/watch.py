"""`medmoe watch`: ask about the new images or series of a service's DICOMweb sources, by rules."""

from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.commands.connection import JsonOption, ServiceOptions, with_option_groups
from medmoe.client.commands.request_options import refuse_given
from medmoe.client.commands.terminal import as_json, note, safe
from medmoe.client.errors import ClientError
from medmoe.client.transport.retry import Retry
from medmoe.client.watch.rules import read_rules
from medmoe.client.watch.state import State
from medmoe.client.watch.tally import Tally
from medmoe.client.watch.watcher import Watcher
from medmoe.model.cli import INTERRUPTED

_BRIEF = Retry(attempts=2, unreachable=False)
"""The watcher waits longer, and for all requests together."""


@with_option_groups()
def watch(
    context: typer.Context,
    rules_file: Annotated[Path, typer.Argument(metavar="RULES", help="TOML file with one table for each rule.")],
    once: Annotated[bool, typer.Option("--once", help="Ask about what there is now, and end.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what one round would ask about, ask nothing, and end.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.1, max=86_400, help="Seconds between rounds.")] = 60.0,
    state: Annotated[
        Path | None, typer.Option(help="File that remembers what has been asked; by default beside RULES, as .state.")
    ] = None,
    show_uids: Annotated[bool, typer.Option("--show-uids", help="Print Study Instance UIDs instead of keys.")] = False,
    json_: JsonOption = False,
    *,
    service: ServiceOptions,
) -> None:
    """Ask a running service about the new images or series of its DICOMweb sources, each once, until Ctrl-C.

    One line is printed for each study, with counts and without patient data.
    Research software, not a medical device.
    """
    for option, given in (("--once", once), ("--dry-run", dry_run)):
        if given:
            refuse_given(context, "interval", f"with {option}")
    rules = read_rules(rules_file)

    reported = False

    def report(tally: Tally) -> None:
        nonlocal reported
        reported = True
        typer.echo(as_json(tally.document()) if json_ else safe(tally.line(dry_run=dry_run)))

    with service.client(_BRIEF) as client, State(state or rules_file.with_suffix(".state"), dry_run=dry_run) as memory:
        watcher = Watcher(
            client,
            rules,
            memory,
            report=report,
            note=note,
            interval=interval,
            once=once,
            dry_run=dry_run,
            show_uids=show_uids,
        )
        try:
            if not (once or dry_run):
                watcher.run()
            error = watcher.round()
        except KeyboardInterrupt:
            nouns = "images or series" if any(rule.series for rule in rules) else "images"
            note(f"interrupted: {watcher.asked} {nouns} were answered; run the same command again to continue")
            raise typer.Exit(INTERRUPTED) from None
        if error is not None:
            raise error
        if watcher.failed:
            raise ClientError(f"{watcher.failed} requests failed; run the same command again to repeat them")
        if dry_run and not reported:
            note(f"would ask about nothing; studies of a rule's modality and dates: {len(watcher.studies)}")
