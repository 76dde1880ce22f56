"""Print the result of a series."""

from pathlib import Path

import typer

from medmoe.client.answers import SeriesAnswer, SeriesClassification
from medmoe.client.answers.series import SeriesDescription, SlicePlace
from medmoe.client.commands.terminal import ABSTAINED, note, percent, safe, table


def print_result(found: SeriesAnswer | SeriesClassification, files: list[Path]) -> None:
    """Print the answer or the labels, and on standard error how they came about; `files` are those that were sent."""
    typer.echo(safe(found.answer) if isinstance(found, SeriesAnswer) else _table(found))
    best = next(one for one in found.slices if one.index == found.best_slice)
    note(f"best slice {best.index}{_place(best, files)}")
    note(_description(found.series))
    if isinstance(found, SeriesAnswer):
        note(f"rule {found.rule}: {percent(found.agreement)} of the slices agree")
    note("; ".join(["not calibrated"] + ([ABSTAINED] if found.abstained else [])))


def _table(found: SeriesClassification) -> str:
    rows = sorted(found.probabilities, key=lambda one: -one.probability)
    headers = ("label", f"{found.rule} probability", "best slice")
    return table(headers, [(one.label, f"{one.probability:.3f}", str(one.best_slice)) for one in rows])


def _place(best: SlicePlace, files: list[Path]) -> str:
    parts = [] if best.position is None else [f"{best.position:g} mm from the first"]
    if best.frame is not None:
        parts.append(f"frame {best.frame}")
    elif files:
        parts.append(str(files[best.file]))
    return f" ({', '.join(parts)})" if parts else ""


def _description(series: SeriesDescription) -> str:
    order = "position" if series.ordered_by == "position" else "number, because no slice has a position"
    window = f"window {series.window}" if series.window else "each slice in its own window"
    irregular = "; unevenly spaced or displaced" if series.irregular else ""
    ignored = f"; files left out, because without a slice: {series.ignored_files}" if series.ignored_files else ""
    return f"{len(series.sampled)} of {series.slice_count} slices, ordered by {order}; {window}{irregular}{ignored}"
