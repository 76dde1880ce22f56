"""Draw a report's plots as PNG files. matplotlib is imported here only, and only when a plot is drawn."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmoe.training.evaluation.metrics.reliability import BINS
from medmoe.training.evaluation.metrics.risk_coverage import ACCEPTED_RISK
from medmoe.training.evaluation.report.report import Report, Section
from medmoe.training.evaluation.report.routing_table import RoutingTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = "matplotlib is not installed: no figures are drawn (it comes with the `train` extra)"
_INK, _QUIET, _SECOND = "#1f4e79", "#9aa5b1", "#b3541e"
_DPI = 120


def can_draw() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def draw_report(report: Report, directory: Path, *, losses: dict[str, list[dict[str, float]]]) -> dict[str, str]:
    """Write every plot there is something for; title by file name. `losses`: a training run's, by stage."""
    drawn: dict[str, str] = {}

    def save(figure: "Figure", name: str, title: str) -> None:
        figure.savefig(directory / name, dpi=_DPI, metadata={"Software": None})
        drawn[name] = title

    for section in report.sections:
        name = f"{section.dataset}-{section.kind}"
        if section.reliability is not None:
            save(_reliability(section), f"reliability-{name}.png", f"{section.dataset}: as right as it is sure?")
        if section.risk_coverage is not None:
            save(
                _risk_coverage(section),
                f"risk-coverage-{name}.png",
                f"{section.dataset}: errors when only the surest count",
            )
    if report.routing.tokens:
        save(_heat_map(report.routing), "experts-by-modality.png", "Share of each modality's prompt tokens by expert")
    if losses:
        save(_losses(losses), "training-loss.png", "Training loss by step")
    return drawn


def _axes(*, columns: int = 1, width: float = 4.8, height: float = 4.2) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height), layout="constrained")
    axes = [figure.add_subplot(1, columns, place + 1) for place in range(columns)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _reliability(section: Section) -> "Figure":
    found = section.reliability
    assert found is not None
    figure, (axis,) = _axes()
    axis.plot([0, 1], [0, 1], color=_QUIET, linewidth=1, linestyle="--")
    curves = {"the model's own": (found, _INK, "o-")}
    if section.calibrated is not None:
        curves["calibrated"] = (section.calibrated.reliability, _SECOND, "s-")
    for name, (curve, colour, style) in curves.items():
        x, y = [bin_.confidence for bin_ in curve.bins], [bin_.accuracy for bin_ in curve.bins]
        # Not clipped: the last bins often lie on the frame.
        label = f"{name}, ECE {curve.ece_equal_mass:.3f}"
        axis.plot(x, y, style, color=colour, markersize=4, linewidth=1.2, clip_on=False, label=label)
    axis.legend(frameon=False, loc="upper left", fontsize=8)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean confidence of the bin", ylabel="share that is right")
    axis.set_title(f"{section.dataset} ({section.kind}), {BINS} equal-mass bins", size=9)
    return figure


def _risk_coverage(section: Section) -> "Figure":
    found = section.risk_coverage
    assert found is not None
    figure, (axis,) = _axes()
    coverage, risk = zip(*found.curve, strict=True)
    axis.plot(coverage, risk, color=_INK)
    axis.axhline(ACCEPTED_RISK, color=_SECOND, linewidth=1, linestyle="--")
    axis.set(xlim=(0, 1), ylim=(0, max(0.1, *risk) * 1.05), xlabel="share answered", ylabel="share wrong of these")
    axis.set_title(f"{section.dataset} ({section.kind}), AURC {found.aurc:.3f}", size=9)
    return figure


def _heat_map(table: RoutingTable) -> "Figure":
    modalities = list(table.tokens)
    layers = list(next(iter(table.tokens.values())))
    experts = [
        table.expert_domains[number] if table.expert_domains else str(number) for number in range(table.num_experts)
    ]
    # A deep model has many MoE layers: the first, the middle and the last show what a page can hold.
    shown = layers if len(layers) <= 6 else [layers[0], layers[len(layers) // 2], layers[-1]]
    figure, axes = _axes(columns=len(shown), width=3.4, height=0.5 * len(modalities) + 1.8)
    for axis, layer in zip(axes, shown, strict=True):
        rows = [
            [count / max(1, sum(counts)) for count in counts] for counts in (table.tokens[m][layer] for m in modalities)
        ]
        axis.imshow(rows, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for y, row in enumerate(rows):
            for x, share in enumerate(row):
                axis.text(
                    x, y, f"{100 * share:.0f}", ha="center", va="center", color="white" if share > 0.5 else "black"
                )
        axis.set_xticks(range(len(experts)), experts, rotation=30, ha="right", size=8)
        axis.set_yticks(range(len(modalities)), modalities if axis is axes[0] else [""] * len(modalities), size=8)
        axis.set_title(f"layer {layer}, % of tokens", size=9)
        axis.set_xlabel("expert", size=8)
    axes[0].set_ylabel("modality of the image", size=8)
    return figure


def _losses(losses: dict[str, list[dict[str, Any]]]) -> "Figure":
    figure, axes = _axes(columns=len(losses), width=3.6, height=3.2)
    for axis, (stage, rows) in zip(axes, losses.items(), strict=True):
        axis.plot([row["step"] for row in rows], [row["loss"] for row in rows], color=_INK, linewidth=1)
        axis.set(xlabel="step", ylabel="loss (nats)" if axis is axes[0] else "")
        axis.set_ylim(bottom=0)
        axis.set_title(stage, size=9)
    return figure
