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
    """Return `72.1 (68.0 to 76.3)`, or without the ends of its interval; a dash for what was not measured.

    Where all draws of a bootstrap are alike, as those of a perfect AUC however few the images, and where clusters are
    too few, there is no interval.
    """
    if interval is None:
        return "-"
    value = f"{100 * interval.value:.1f}"
    if not ends:
        return value
    if interval.low == interval.high:
        return f"{value} (no interval)"
    return f"{value} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _row(cells: Sequence[str]) -> str:
    # A line break would end the table; names of datasets and labels come from files.
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
