"""Write a report as Markdown tables."""

from collections.abc import Iterator, Mapping

from medmoe.training.evaluation.metrics.confusion import Confusion
from medmoe.training.evaluation.metrics.reliability import BINS, Reliability
from medmoe.training.evaluation.metrics.scores import Scores
from medmoe.training.evaluation.predict.linear_probe import PROBE
from medmoe.training.evaluation.report.markdown_table import percent, table
from medmoe.training.evaluation.report.report import BLANKED, MAJORITY, Report, Section

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
SUMMARY_NOTES = (
    "Percent; the tables below have the intervals. Closed and open are Med-MoE's accuracy and recall. ECE: how far "
    "confidences are from the share that is right; after the arrow, through the checkpoint's calibration. Image "
    "blanked: the same model asked about a grey square; majority: the most frequent answer of the train split. Both "
    "give closed / open, or accuracy. Probe: accuracy of logistic regression on the tower's pooled features."
)
_NOTES = (
    "Percent, with 95 % intervals over images, or over the groups (of a patient, say) that the data name: Clopper and "
    "Pearson's for accuracies, with the effective number of answers (Korn and Graubard), bootstrapped otherwise. "
    "Legacy numbers follow Med-MoE's evaluator: closed counts a reference found anywhere inside the answer (`no` in "
    "`normal`), open recall rises when a right word is repeated. Strict is equality after normalisation. Majority "
    "rows answer from the train split without seeing the image. AUC is one label against the rest, averaged; with two "
    "labels it is the usual one. A perfect AUC or recall has no bootstrapped interval, "
    "nor has a figure over fewer than five images or groups."
)
_CONFIDENCE_NOTES = (
    f"ECE: expected calibration error over {BINS} bins, which hold equally many samples or are equally wide. A "
    "question's confidence is the probability of its whole answer, and right is strict; Brier and NLL (nats) of "
    "questions are those of right or wrong, of classifications those over all labels. AURC: mean error when only the "
    "most confident are answered, over all shares answered; the last column is the largest share with at most 5 % "
    "errors, its threshold chosen on these same samples."
)


def markdown(report: Report, *, question_types: bool = True) -> str:
    """Return a report: a summary; tables for each kind of task, parts, confidences, confusions; a line on images in
    train too.
    """
    fields = {"modality": "modalities"} | ({"question type": "question_types"} if question_types else {})
    blocks = [summary(report), SUMMARY_NOTES]
    vqa = [section for section in report.sections if section.kind == "vqa"]
    classification = [section for section in report.sections if section.kind == "classification"]
    for sections, columns in ((vqa, _VQA_COLUMNS), (classification, _CLASSIFICATION_COLUMNS)):
        if sections:
            blocks.append(_table(sections, columns=columns))
            blocks += _parts(sections, columns=columns, fields=fields)
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
    lines = []
    for section in sections:
        rows = {"model": section.scores}
        rows |= {f"model, {name}": scores for name, scores in section.subsets.items()}
        rows |= {f"{name} baseline": scores for name, scores in section.baselines.items()}
        lines += [_cells([section.dataset, name], scores, columns=columns) for name, scores in rows.items()]
    return table(["dataset", "answers of", "n", *columns], lines)


def _parts(sections: list[Section], *, columns: Mapping[str, str], fields: Mapping[str, str]) -> Iterator[str]:
    for title, field in fields.items():
        rows = [
            _cells([section.dataset, name], scores, columns=columns)
            for section in sections
            for name, scores in getattr(section, field).items()
        ]
        if rows:
            yield table(["dataset", title, "n", *columns], rows)


def _cells(names: list[str], scores: Scores, *, columns: Mapping[str, str]) -> list[str]:
    return [*names, str(counted(scores)), *(percent(scores.get(metric)) for metric in columns.values())]


def _confidences(sections: list[Section]) -> str:
    rows = []
    for section in sections:
        found, curve = section.reliability, section.risk_coverage
        assert found is not None
        assert curve is not None
        name = f"{section.dataset} ({section.kind})"
        rows.append(
            [name, *_reliability_cells(found, section.scores), f"{curve.aurc:.3f}", f"{100 * curve.coverage:.1f}"]
        )
        if section.calibrated is not None:
            after = section.calibrated
            rows.append([f"{name}, calibrated", *_reliability_cells(after.reliability, after.scores), "-", "-"])
    return table(_CONFIDENCE_COLUMNS, rows)


def _reliability_cells(found: Reliability, scores: Scores) -> list[str]:
    """Return the cells of a row of confidences, from n to NLL."""
    kind = "" if "brier" in scores else "confidence_"
    percents = (found.mean_confidence, found.accuracy, found.ece_equal_mass, found.ece_equal_width)
    proper = (scores[f"{kind}brier"], scores[f"{kind}nll"])
    return [str(found.n), *(f"{100 * value:.1f}" for value in percents), *(f"{score.value:.3f}" for score in proper)]


def _confusion(dataset: str, *, matrix: Confusion) -> str:
    extra = ["no label"] if any(matrix.no_label) else []
    rows = [
        [label, *map(str, counts), *([str(none)] if extra else [])]
        for label, counts, none in zip(matrix.labels, matrix.counts, matrix.no_label, strict=True)
    ]
    counts = table([f"{dataset}: true, answered", *matrix.labels, *extra], rows)
    return f"{counts}\n\nBalanced accuracy: {100 * matrix.balanced_accuracy:.1f}"


def _facts(report: Report) -> Iterator[str]:
    for section in report.sections:
        yield (
            f"- {section.dataset} ({section.kind}): {section.n} samples on {section.images} images; "
            f"{section.in_train} of them on an image that is in train too"
            + (f"; {len(section.confusion.labels)} labels to choose among" if section.confusion is not None else "")
            + (f"; {section.untyped} without an answer type are not scored" if section.untyped else "")
            + (f"; {section.cut} answers were cut off by the longest permitted answer" if section.cut else "")
        )


def summary(report: Report) -> str:
    """Return a table in percent without intervals, with a column for the probe where there is one."""
    beside = {"image blanked": BLANKED, "majority": MAJORITY}
    if any(PROBE in section.baselines for section in report.sections):
        beside["probe"] = PROBE
    columns = ("dataset", "n", "closed", "open", "accuracy", "AUC", "ECE", *beside)
    return table(columns, (row for section in report.sections for row in _rows(section, tuple(beside.values()))))


def _rows(section: Section, baselines: tuple[str, ...]) -> Iterator[list[str]]:
    name = f"{section.dataset} ({section.kind})"
    without = [_headline(section.baselines.get(baseline)) for baseline in baselines]
    yield [name, str(section.n), *_figures(section.scores), _ece(section), *without]
    for part, scores in section.subsets.items():
        yield [f"{name}, {part}", str(counted(scores)), *_figures(scores), "-", *("-" for _ in baselines)]


def _figures(scores: Scores) -> list[str]:
    names = ("closed_accuracy_legacy", "open_recall_legacy", "accuracy", "auc")
    return [percent(scores.get(name), ends=False) for name in names]


def _headline(scores: Scores | None) -> str:
    """Return the accuracy of classifications, `closed accuracy / open recall` of questions; a dash without scores."""
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
    """Return how many samples were scored; questions without an answer type are not."""
    # Open and closed questions are disjoint, and each has one strict metric; classifications have the accuracy.
    names = ("closed_accuracy_strict", "open_accuracy_strict", "accuracy")
    return sum(scores[name].n for name in names if name in scores)
