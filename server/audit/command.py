"""`medmoe audit`: check and export the audit trail of a service, and look for an image in it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from medmoe.model.cli import command_group
from medmoe.server.audit.audit_event import audit_event
from medmoe.server.audit.chain import GENESIS
from medmoe.server.audit.keys import AuditKeys
from medmoe.server.audit.verify import read_trail, verify_trail

app = command_group("Check or export the audit trail of a service (MEDMOE_AUDIT_DIR). It may be running meanwhile.")

_NOT_FOUND = 1
_KEY_OPTION = "--key-file"

Directory = Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Directory of the trail.")]
KeyFile = Annotated[
    Path | None, typer.Option(help="The file that MEDMOE_AUDIT_KEY named: checks who wrote each record.")
]
After = Annotated[
    str, typer.Option(metavar="HASH", help="Hash of the last record of segments that were archived elsewhere.")
]


@app.command()
def verify(
    directory: Directory,
    key_file: KeyFile = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="Hash that an earlier check printed: finds a trail cut since then."),
    ] = None,
    after: After = GENESIS,
) -> None:
    """Check every record and its place in the chain; print the hash of the last one.

    The exit status is 1 at the first record that is changed, missing, repeated or in another place, which is named.
    """
    found = verify_trail(directory, after=after, keys=_keys(key_file), head=head)
    typer.echo(f"records: {found.records:,} in {found.segments:,} files, the last of {found.last_time}")
    typer.echo(f"starts of the service: {found.starts:,}; writes broken off and marked: {found.interrupted:,}")
    if key_file is None:
        typer.echo("not checked without --key-file: who wrote the records")
    typer.echo(f"head: {found.head}")


@app.command()
def export(
    directory: Directory,
    key_file: KeyFile = None,
    after: After = GENESIS,
    fhir: Annotated[
        bool, typer.Option("--fhir", help="Write AuditEvent resources of FHIR R4 instead of the records.")
    ] = False,
) -> None:
    """Write the records as JSON lines, each checked as `verify` checks it."""
    for record in read_trail(directory, after=after, keys=_keys(key_file)):
        typer.echo(json.dumps(audit_event(record) if fhir else record.fields, separators=(",", ":")))


@app.command()
def find(
    directory: Directory,
    key_file: Annotated[Path, typer.Option(help="The file that MEDMOE_AUDIT_KEY named.")],
    image: Annotated[Path | None, typer.Option(help="Image file: was it asked about?")] = None,
    uid: Annotated[str | None, typer.Option(help="Study, Series or SOP Instance UID: was it asked about?")] = None,
    after: After = GENESIS,
) -> None:
    """Write the records of requests about an image, a study, a series or an instance.

    The exit status is 1 if there is none.
    """
    keys = AuditKeys.from_file(key_file, named_by=_KEY_OPTION)
    if (image is None) == (uid is None):
        raise typer.BadParameter("give --image or --uid")
    digest = keys.image_digest(image.read_bytes()) if image is not None else keys.uid_digest(uid or "")
    found = False
    for record in read_trail(directory, after=after, keys=keys):
        fields = record.fields
        digests = [value for one in (*fields.get("images", ()), fields.get("listed", {})) for value in one.values()]
        if digest in digests:
            found = True
            typer.echo(json.dumps(fields, separators=(",", ":")))
    if not found:
        typer.echo("no record", err=True)
        raise typer.Exit(_NOT_FOUND)


def _keys(path: Path | None) -> AuditKeys | None:
    return None if path is None else AuditKeys.from_file(path, named_by=_KEY_OPTION)
