"""A report as Markdown tables that a person reads; the JSON beside it holds every number."""

from collections.abc import Iterator

from medmoe.training.evaluation.confusion import Confusion
from medmoe.training.evaluation.interval import Interval
from medmoe.training.evaluation.report import Report, Section
from medmoe.training.evaluation.scores import Scores

_VQA_COLUMNS = {
    "closed, legacy": "closed_accuracy_legacy",
    "closed, strict": "closed_accuracy_strict",
    "open recall, legacy": "open_recall_legacy",
    "open, strict": "open_accuracy_strict",
}
_CLASSIFICATION_COLUMNS = {"accuracy": "accuracy"}
_NOTES = (
    "Percent, with 95 % bootstrap intervals over images. Legacy numbers follow Med-MoE's evaluator: closed counts a "
    "reference found anywhere inside the answer (`no` in `normal`), open recall rises when a right word is repeated. "
    "Strict is equality after normalisation. Majority rows answer from the train split without seeing the image."
)


def markdown(report: Report) -> str:
    """A table a kind of task, confusion matrices, and a line on images that are in train too."""
    blocks = []
    vqa = [section for section in report.sections if section.kind == "vqa"]
    classification = [section for section in report.sections if section.kind == "classification"]
    if vqa:
        blocks.append(_table(vqa, columns=_VQA_COLUMNS))
    if classification:
        blocks.append(_table(classification, columns=_CLASSIFICATION_COLUMNS))
    for section in classification:
        if section.confusion is not None:
            blocks.append(_confusion(section.dataset, matrix=section.confusion))
    blocks.append("\n".join(_facts(report)))
    blocks.append(_NOTES)
    return "\n\n".join(blocks) + "\n"


def _table(sections: list[Section], *, columns: dict[str, str]) -> str:
    lines = [_row(["dataset", "answers of", "n", *columns]), _row(["---"] * (3 + len(columns)))]
    for section in sections:
        rows = {"model": section.scores}
        rows |= {f"{name} baseline": scores for name, scores in section.baselines.items()}
        rows |= {f"model, {name}": scores for name, scores in section.slices.items()}
        for name, scores in rows.items():
            cells = [_percent(scores.get(metric)) for metric in columns.values()]
            lines.append(_row([section.dataset, name, str(_questions(scores, columns=columns)), *cells]))
    return "\n".join(lines)


def _questions(scores: Scores, *, columns: dict[str, str]) -> int:
    """Samples behind a row: open and closed ones are disjoint, and each has one strict metric or the accuracy."""
    counted = ("closed_accuracy_strict", "open_accuracy_strict", "accuracy")
    return sum(scores[metric].n for metric in columns.values() if metric in counted and metric in scores)


def _confusion(dataset: str, *, matrix: Confusion) -> str:
    extra = ["no label"] if any(matrix.no_label) else []
    lines = [_row([f"{dataset}: true, answered", *matrix.labels, *extra])]
    lines.append(_row(["---"] * (1 + len(matrix.labels) + len(extra))))
    for label, counts, none in zip(matrix.labels, matrix.counts, matrix.no_label, strict=True):
        lines.append(_row([label, *map(str, counts), *([str(none)] if extra else [])]))
    lines.append(f"\nBalanced accuracy: {100 * matrix.balanced_accuracy:.1f}")
    return "\n".join(lines)


def _facts(report: Report) -> Iterator[str]:
    for section in report.sections:
        yield (
            f"- {section.dataset} ({section.kind}): {section.n} samples on {section.images} images; "
            f"{section.in_train} of them on an image that is in train too"
            + (f"; {section.untyped} without an answer type are not scored" if section.untyped else "")
        )


def _percent(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
