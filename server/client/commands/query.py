"""`medmoe query`: list what a DICOMweb source of a service holds."""

from typing import Annotated

import typer

from medmoe.client.commands.connection import JsonOption, ServiceOptions, with_option_groups
from medmoe.client.commands.request_options import refuse_options
from medmoe.client.commands.terminal import as_json, note, table

_LIMIT = 100
"""Lines where the command does not say."""


@with_option_groups()
def query(
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="Source of the service; without one the sources are listed."),
    ] = None,
    study: Annotated[str | None, typer.Option(help="List the series of this Study Instance UID.")] = None,
    series: Annotated[str | None, typer.Option(help="With --study: list the instances of this series.")] = None,
    modality: Annotated[str | None, typer.Option(help="List studies with a series of this modality.")] = None,
    date: Annotated[str | None, typer.Option(help="List studies of this date or range: 20260514, 20260101-.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=1000, help=f"Largest number of lines; by default {_LIMIT}.")
    ] = None,
    json_: JsonOption = False,
    *,
    service: ServiceOptions,
) -> None:
    """List the studies, series or instances of a DICOMweb source, without their patients."""
    if series and not study:
        raise typer.BadParameter("--series needs --study")
    of_studies = {"modality": modality, "date": date}
    if source is None:
        refuse_options({"study": study, "series": series, **of_studies, "limit": limit}, "without SOURCE")
    if study:
        refuse_options(of_studies, "with --study")
    with service.client() as client:
        if source is None:
            rows = [one.model_dump() for one in client.sources()]
        elif study and series:
            rows = [one.model_dump() for one in client.instances(source, study, series, limit=limit)]
        elif study:
            rows = [one.model_dump() for one in client.series(source, study, limit=limit)]
        else:
            found = client.studies(source, modality=modality, date=date, limit=limit)
            rows = [one.model_dump() for one in found]
    if json_:
        for row in rows:
            typer.echo(as_json(row))
    elif rows:
        typer.echo(table(tuple(rows[0]), [[_cell(value) for value in row.values()] for row in rows]))
    if not rows:
        note(f"{source} lists nothing" if source else "the service has no sources (its MEDMOE_DICOMWEB_SOURCES)")
    elif source is not None and len(rows) == (limit or _LIMIT):
        note(f"these are the first {len(rows)}; there may be more (--limit, --date)")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
