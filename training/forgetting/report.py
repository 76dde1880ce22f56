"""Write the experiment as Markdown: what each method learnt, and what it forgot."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from medmoe.training.ablation.comparison import Row
from medmoe.training.ablation.report import difference, millions, reached
from medmoe.training.evaluation.report.markdown_table import table
from medmoe.training.forgetting.summary import Spread, Summary, columns_of

_NOTES = (
    "New and old: the mean over all scores of the new and of the old tasks, percent. Forgotten: percentage points of "
    "the old tasks' mean that the base had and the method has not; a negative number is a gain. With several seeds: "
    "mean ± standard deviation over seeds. Steps and seconds are those of training."
)
_GATE_NOTES = (
    "Entropy of the routers' gates as a share of that of equal gates, and the anchors' share of the gate; means over "
    "routers and tokens of evaluated samples, on old / new tasks."
)
_SCORE_NOTES = (
    "Closed: accuracy as Med-MoE's evaluator counts it; open: its recall; percent. With several seeds: mean (worst to "
    "best seed)."
)
_DIFFERENCE_NOTES = (
    "Percentage points more than the base, on the same samples, averaged over seeds, with a 95 % bootstrap interval "
    "over images or patients, which there is not where all answers are the same or of fewer than five of these. An "
    "interval that holds 0 shows no difference; with many figures, one in twenty misses it by chance."
)


def forgetting_report(
    rows: Sequence[Row],
    summaries: Sequence[Summary],
    *,
    setup: Mapping[str, Any],
    old: Collection[str],
    new: Collection[str],
) -> str:
    """Return the same text for the same results. `setup` is what all runs have in common."""
    columns = [*columns_of(rows[0], old), *columns_of(rows[0], new)]
    return (
        "\n\n".join(
            [
                "# Forgetting",
                "Research software, not a medical device.",
                _facts(setup),
                table(
                    ["method", "seeds", "trained", "steps", "seconds", "new", "old", "forgotten", "entropy", "anchors"],
                    [_line(row, summary) for row, summary in zip(rows, summaries, strict=True)],
                ),
                _NOTES,
                _GATE_NOTES,
                "## Scores",
                table(
                    ["method", *columns],
                    [[row.method, *(reached(row.figures[column]) for column in columns)] for row in rows],
                ),
                _SCORE_NOTES,
                "## Against the base",
                table(
                    ["method", *columns],
                    [[row.method, *(difference(row.figures[column]) for column in columns)] for row in rows[1:]],
                ),
                _DIFFERENCE_NOTES,
            ]
        )
        + "\n"
    )


def _facts(setup: Mapping[str, Any]) -> str:
    lines = [f"- base: {setup['base']['name']}, weights SHA-256 `{setup['base']['weights_sha256']}`"]
    for group in ("old", "new"):
        files = ", ".join(f"{file['dataset']} ({file['samples']} samples)" for file in setup[group])
        lines.append(f"- evaluated on {group} tasks: {files}, split {setup['split']}")
    adaptation = setup["adaptation"]
    rates = f"{adaptation['learning_rate']:g} (full) and {adaptation['adapter_learning_rate']:g} (adapters)"
    lines.append(f"- trained on: {_entries(adaptation['new'])}")
    lines.append(f"- replayed, where a method replays: {_entries(adaptation['replay'])}")
    lines.append(f"- {adaptation['epochs']:g} epochs in batches of {adaptation['batch_size']}, learning rates {rates}")
    return "\n".join(lines)


def _entries(entries: Sequence[Mapping[str, Any]]) -> str:
    limits = ("" if entry["limit"] is None else f" (at most {entry['limit']})" for entry in entries)
    return ", ".join(
        f"{entry['dataset']} {entry['source']}{limit}" for entry, limit in zip(entries, limits, strict=True)
    )


def _line(row: Row, summary: Summary) -> list[str]:
    costs = [str(len(row.seeds)), millions(row.trained), str(row.steps), f"{row.seconds:.0f}"]
    entropy = anchors = "-"
    if (gates := summary.gates) is not None:
        entropy = f"{gates.old.entropy:.2f} / {gates.new.entropy:.2f}"
        anchors = f"{gates.old.anchor_mass:.2f} / {gates.new.anchor_mass:.2f}"
    scores = [_percent(summary.new), _percent(summary.old), _percent(summary.forgotten)]
    return [row.method, *(costs if row.seeds else ["-"] * len(costs)), *scores, entropy, anchors]


def _percent(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    mean = f"{100 * spread.mean:.1f}"
    return mean if len(spread.by_seed) == 1 else f"{mean} ± {100 * spread.deviation:.1f}"
