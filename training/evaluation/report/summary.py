"""The first table of a report: one line for each dataset, few figures, and what is reached without the image."""

from collections.abc import Iterator

from medmoe.training.evaluation.metrics.scores import Scores
from medmoe.training.evaluation.report.markdown_table import percent, table
from medmoe.training.evaluation.report.report import BLANKED, MAJORITY, Report, Section

_COLUMNS = ("dataset", "n", "closed", "open", "accuracy", "AUC", "ECE", "image blanked", "majority")


def summary(report: Report) -> str:
    """Percent without intervals: the tables behind it have them."""
    return table(_COLUMNS, (row for section in report.sections for row in _rows(section)))


def _rows(section: Section) -> Iterator[list[str]]:
    name = f"{section.dataset} ({section.kind})"
    without = [_headline(section.baselines.get(baseline)) for baseline in (BLANKED, MAJORITY)]
    yield [name, str(section.n), *_figures(section.scores), _ece(section), *without]
    for part, scores in section.subsets.items():
        yield [f"{name}, {part}", str(counted(scores)), *_figures(scores), "-", "-", "-"]


def _figures(scores: Scores) -> list[str]:
    names = ("closed_accuracy_legacy", "open_recall_legacy", "accuracy", "auc")
    return [percent(scores.get(name), ends=False) for name in names]


def _headline(scores: Scores | None) -> str:
    """Closed accuracy, and open recall after a stroke; of classifications the accuracy."""
    if scores is None:
        return "-"
    names = ("accuracy",) if "accuracy" in scores else ("closed_accuracy_legacy", "open_recall_legacy")
    return " / ".join(percent(scores.get(name), ends=False) for name in names)


def _ece(section: Section) -> str:
    if section.reliability is None:
        return "-"
    raw = f"{100 * section.reliability.ece_equal_mass:.1f}"
    return raw if section.calibrated is None else f"{raw} -> {100 * section.calibrated.reliability.ece_equal_mass:.1f}"


def counted(scores: Scores) -> int:
    """How many samples were scored; questions without an answer type are not."""
    # Open and closed questions are disjoint, and each has one strict metric; classifications have the accuracy.
    names = ("closed_accuracy_strict", "open_accuracy_strict", "accuracy")
    return sum(scores[name].n for name in names if name in scores)
