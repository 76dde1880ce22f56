"""A report as Markdown tables that a person reads; the JSON beside it holds every number."""

from collections.abc import Iterator, Mapping

from medmoe.training.evaluation.confusion import Confusion
from medmoe.training.evaluation.interval import Interval
from medmoe.training.evaluation.reliability import BINS
from medmoe.training.evaluation.report import Report, Section
from medmoe.training.evaluation.scores import Scores

_VQA_COLUMNS = {
    "closed, legacy": "closed_accuracy_legacy",
    "closed, strict": "closed_accuracy_strict",
    "open recall, legacy": "open_recall_legacy",
    "open, strict": "open_accuracy_strict",
}
_CLASSIFICATION_COLUMNS = {"accuracy": "accuracy", "AUC": "auc"}
_CONFIDENCE_COLUMNS = (
    "dataset",
    "n",
    "mean confidence",
    "right",
    "ECE, equal mass",
    "ECE, equal width",
    "Brier",
    "NLL",
    "AURC",
    "answered at 5 % risk",
)
_NOTES = (
    "Percent, with 95 % bootstrap intervals over images. Legacy numbers follow Med-MoE's evaluator: closed counts a "
    "reference found anywhere inside the answer (`no` in `normal`), open recall rises when a right word is repeated. "
    "Strict is equality after normalisation. Majority rows answer from the train split without seeing the image. "
    "AUC is one label against the rest, averaged; with two labels it is the usual one. Where all or none of a few are "
    "right, the interval has no width and says nothing."
)
_CONFIDENCE_NOTES = (
    f"ECE: expected calibration error over {BINS} bins, which hold equally many samples or are equally wide. A "
    "question's confidence is the probability of its whole answer, and right is strict; Brier and NLL (nats) of "
    "questions are those of right or wrong, of classifications those over all labels. AURC: mean error when only the "
    "most confident are answered, over all shares answered; the last column is the largest share with at most 5 % "
    "errors, its threshold chosen on these same samples."
)


def markdown(report: Report) -> str:
    """Tables for each kind of task, parts, confidences, confusion matrices, and a line on images in train too."""
    blocks = []
    vqa = [section for section in report.sections if section.kind == "vqa"]
    classification = [section for section in report.sections if section.kind == "classification"]
    for sections, columns in ((vqa, _VQA_COLUMNS), (classification, _CLASSIFICATION_COLUMNS)):
        if sections:
            blocks.append(_table(sections, columns=columns))
            blocks += _parts(sections, columns=columns)
    if confident := [section for section in report.sections if section.reliability is not None]:
        blocks.append(_confidences(confident))
    for section in classification:
        if section.confusion is not None:
            blocks.append(_confusion(section.dataset, matrix=section.confusion))
    blocks.append("\n".join(_facts(report)))
    blocks.append(_NOTES)
    if confident:
        blocks.append(_CONFIDENCE_NOTES)
    return "\n\n".join(blocks) + "\n"


def _table(sections: list[Section], *, columns: Mapping[str, str]) -> str:
    lines = _head(["dataset", "answers of", "n", *columns])
    for section in sections:
        rows = {"model": section.scores}
        rows |= {f"model, {name}": scores for name, scores in section.subsets.items()}
        rows |= {f"{name} baseline": scores for name, scores in section.baselines.items()}
        lines += [_score_row([section.dataset, name], scores, columns=columns) for name, scores in rows.items()]
    return "\n".join(lines)


def _parts(sections: list[Section], *, columns: Mapping[str, str]) -> Iterator[str]:
    for title, field in (("modality", "modalities"), ("question type", "question_types")):
        rows = [
            _score_row([section.dataset, name], scores, columns=columns)
            for section in sections
            for name, scores in getattr(section, field).items()
        ]
        if rows:
            yield "\n".join(_head(["dataset", title, "n", *columns]) + rows)


def _score_row(names: list[str], scores: Scores, *, columns: Mapping[str, str]) -> str:
    # Open and closed questions are disjoint, and each has one strict metric; classifications have the accuracy.
    counted = [scores[name].n for name in ("closed_accuracy_strict", "open_accuracy_strict") if name in scores]
    n = scores["accuracy"].n if "accuracy" in scores else sum(counted)
    return _row([*names, str(n), *(_percent(scores.get(metric)) for metric in columns.values())])


def _confidences(sections: list[Section]) -> str:
    lines = _head(list(_CONFIDENCE_COLUMNS))
    for section in sections:
        found, curve = section.reliability, section.risk_coverage
        assert found is not None
        assert curve is not None
        kind = "confidence_" if section.kind == "vqa" else ""
        brier, nll = section.scores[f"{kind}brier"], section.scores[f"{kind}nll"]
        cells = [f"{100 * found.mean_confidence:.1f}", f"{100 * found.accuracy:.1f}"]
        cells += [f"{100 * found.ece_equal_mass:.1f}", f"{100 * found.ece_equal_width:.1f}"]
        cells += [f"{brier.value:.3f}", f"{nll.value:.3f}", f"{curve.aurc:.3f}", f"{100 * curve.coverage:.1f}"]
        lines.append(_row([f"{section.dataset} ({section.kind})", str(found.n), *cells]))
    return "\n".join(lines)


def _confusion(dataset: str, *, matrix: Confusion) -> str:
    extra = ["no label"] if any(matrix.no_label) else []
    lines = _head([f"{dataset}: true, answered", *matrix.labels, *extra])
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
            + (f"; {section.cut} answers were cut off by the longest permitted answer" if section.cut else "")
        )


def _percent(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _head(cells: list[str]) -> list[str]:
    return [_row(cells), _row(["---"] * len(cells))]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
