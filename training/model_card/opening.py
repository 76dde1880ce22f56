"""Write the opening of a model card."""

from collections.abc import Iterable

from medmoe.training.evaluation.metrics.scores import Scores
from medmoe.training.evaluation.report.report import BLANKED, MAJORITY, Report, Section

_WELL = 0.9
_CAN = "- It answers a short English question about one medical image in a few words, or chooses among given labels."
_CANNOT = (
    "- It has seen the kinds of images listed below and no others. Of other kinds, and of the same kinds from other "
    "sources, it answers as confidently and is often wrong.",
    "- Offer labels in the words that are listed below: under other words it is often wrong.",
    "- It measures nothing, compares no images, keeps no conversation and writes no reports.",
    "- A high probability is no proof; calibration holds for images like those it was fitted on.",
)


def opening(report: Report) -> str:
    """Return a list in Markdown, of what it can do first."""
    labelled = [section for section in report.sections if "accuracy" in section.scores]
    known = [section for section in labelled if _is_known(section)]
    well = [section for section in known if section.scores["accuracy"].value >= _WELL]
    fair = [section for section in known if section not in well]
    poor = [section for section in labelled if section not in known]
    lines = [_CAN]
    lines += _labels("Labels that it gets right nine times in ten or more", well)
    lines += _labels("Labels that it gets right more often than chance, but not that often", fair)
    lines += _labels("Labels that it does not get right clearly more often than the most frequent answer", poor)
    lines += [_questions(section) for section in report.sections if section.kind == "vqa"]
    return "\n".join([*lines, *_CANNOT])


def _is_known(section: Section) -> bool:
    """Return whether the interval of its accuracy lies above the most frequent answer's accuracy."""
    majority = section.baselines.get(MAJORITY)
    least = 1 / len(section.confusion.labels) if section.confusion is not None else 0.0
    return section.scores["accuracy"].low > (least if majority is None else majority["accuracy"].value)


def _labels(what: str, sections: Iterable[Section]) -> list[str]:
    named = [f"{section.dataset} {100 * section.scores['accuracy'].value:.0f} %" for section in sections]
    return [f"- {what}: {', '.join(named)}."] if named else []


def _questions(section: Section) -> str:
    said = f"- Questions of {section.dataset}: {_percents(section.scores)}"
    blanked = section.baselines.get(BLANKED)
    return f"{said}; with the image blanked {_percents(blanked)}." if blanked else f"{said}."


def _percents(scores: Scores) -> str:
    parts = {"closed": "closed_accuracy_legacy", "open": "open_recall_legacy"}
    return ", ".join(f"{name} {100 * scores[metric].value:.0f} %" for name, metric in parts.items() if metric in scores)
