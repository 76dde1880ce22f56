"""Write a Markdown table, the same text for the same cells."""

from collections.abc import Iterable, Sequence

from medmoe.training.evaluation.metrics.interval import Interval


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of head, rule and rows; a cell's own bars are escaped. Raises ValueError for a row of another
    width.
    """
    lines = [_row(columns), _row(["---"] * len(columns))]
    for cells in rows:
        if len(cells) != len(columns):
            raise ValueError(f"{len(cells)} cells in a table of {len(columns)} columns")
        lines.append(_row(cells))
    return "\n".join(lines)


def percent(interval: Interval | None, *, ends: bool = True) -> str:
    """Return `72.1 (68.0 to 76.3)`, or without the ends of its interval; a dash for what was not measured."""
    if interval is None:
        return "-"
    value = f"{100 * interval.value:.1f}"
    return f"{value} ({100 * interval.low:.1f} to {100 * interval.high:.1f})" if ends else value


def _row(cells: Sequence[str]) -> str:
    # A line break would end the table; names of datasets and labels come from files.
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
