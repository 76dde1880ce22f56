"""Write the comparison as Markdown: what each method costs, what it reaches, and whether that is more than chance."""

from collections.abc import Sequence
from typing import Any

from medmoe.training.ablation.comparison import Figure, Row
from medmoe.training.evaluation.report.markdown_table import table

_NOTES = (
    "Closed: accuracy as Med-MoE's evaluator counts it; open: its recall; percent. With several seeds: mean (worst to "
    "best seed). Trained: parameters that the last stage moved, without a router that is trained before it; activated: "
    "those that one token passes through, vision tower included. Seconds are those of the last stage."
)
_DIFFERENCE_NOTES = (
    "Percentage points more than {reference}, on the same samples, each averaged over its seeds, with a 95 % bootstrap "
    "interval over images or patients, which there is not where all answers are the same or of fewer than five of "
    "these. An interval that holds 0 shows no difference; with many figures, one in twenty misses it by chance. The "
    "interval is that of the test set: how much seeds differ stands in the first table."
)


def ablation_report(rows: Sequence[Row], *, setup: dict[str, Any], reference: str) -> str:
    """Return the same text for the same rows. `setup` is what all trials have in common."""
    columns = list(dict.fromkeys(column for row in rows for column in row.figures))
    blocks = [
        "# Ablation",
        "Research software, not a medical device.",
        _facts(setup),
        table(
            ["method", "seeds", "trained", "activated", "total", "steps", "seconds", *columns],
            [[*_costs(row), *(reached(row.figures.get(column)) for column in columns)] for row in rows],
        ),
        _NOTES,
    ]
    compared = [row for row in rows if any(figure.difference is not None for figure in row.figures.values())]
    if compared:
        blocks += [
            f"## Against {reference}",
            table(
                ["method", *columns],
                [[row.method, *(difference(row.figures.get(column)) for column in columns)] for row in compared],
            ),
            _DIFFERENCE_NOTES.format(reference=reference),
        ]
    return "\n\n".join(blocks) + "\n"


def _facts(setup: dict[str, Any]) -> str:
    budget = setup["budget"]
    epochs = "the recipes' own epochs" if budget["epochs"] is None else f"epochs {budget['epochs']:g}"
    limit = "" if budget["limit"] is None else f", at most {budget['limit']} samples of each data entry"
    data = ", ".join(f"{file['dataset']} ({file['samples']} samples)" for file in setup["data"])
    return "\n".join(
        [
            f"- base: {setup['base']['name']}, weights SHA-256 `{setup['base']['weights_sha256']}`",
            f"- budget: {epochs}{limit}",
            f"- evaluated: {data}, split {setup['split']}",
        ]
    )


def _costs(row: Row) -> list[str]:
    if not row.seeds:
        return [row.method, "-", "-", millions(row.activated), millions(row.total), "-", "-"]
    sizes = [millions(size) for size in (row.trained, row.activated, row.total)]
    return [row.method, str(len(row.seeds)), *sizes, str(row.steps), f"{row.seconds:.0f}"]


def millions(count: int) -> str:
    """Return a number of parameters as text."""
    return f"{count / 1e6:.2f} M"


def reached(figure: Figure | None) -> str:
    """Return the mean over seeds in percent, with the worst and the best seed where they differ."""
    if figure is None:
        return "-"
    mean = f"{100 * figure.mean:.1f}"
    return mean if figure.low == figure.high else f"{mean} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def difference(figure: Figure | None) -> str:
    """Return the difference to the reference in percentage points, with its interval where there is one."""
    if figure is None or figure.difference is None:
        return "-"
    found = figure.difference
    if found.low == found.high:
        return f"{100 * found.value:+.1f} (no interval)"
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
