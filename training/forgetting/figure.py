"""Draw what methods learn and what they forget. matplotlib is imported only when the figure is drawn."""

from collections.abc import Sequence
from pathlib import Path

from medmoe.training.forgetting.summary import Summary

_COLOURS = ("#1f4e79", "#b3541e", "#2e7d5b", "#7a3b8f", "#c0392b", "#8a6d1d", "#4a90c2", "#555555")
_QUIET = "#9aa5b1"
_DPI = 120


def draw_forgetting(summaries: Sequence[Summary], path: Path) -> None:
    """Write a PNG: a small point for each seed, a large one for the mean; up and right is better.

    The first summary is the base. Raises ModuleNotFoundError without matplotlib.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axis = figure.add_subplot()
    axis.spines[["top", "right"]].set_visible(False)
    base, *methods = summaries
    axis.axhline(100 * base.old.mean, color=_QUIET, linewidth=1, linestyle="--")
    axis.plot(100 * base.new.mean, 100 * base.old.mean, "x", color=_QUIET, markersize=8, label="base")
    for number, found in enumerate(methods):
        colour = _COLOURS[number % len(_COLOURS)]
        x, y = ([100 * score for score in spread.by_seed] for spread in (found.new, found.old))
        axis.plot(x, y, ".", color=colour, markersize=6, alpha=0.5)
        axis.plot(100 * found.new.mean, 100 * found.old.mean, "o", color=colour, markersize=9, label=found.method)
    axis.set(xlabel="mean score of the new tasks, %", ylabel="mean score of the old tasks, %")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
