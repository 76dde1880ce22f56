"""Write what a model card says about images outside the training data, where official splits share theirs.

The figures are another checkpoint's (recipe SIZE-image-disjoint), evaluated by `medmoe eval --manifest`, whose output
is put into the run's directory under the name `image_disjoint`.
"""

import json
from pathlib import Path
from typing import Any

from medmoe.training.data.errors import DataError
from medmoe.training.evaluation.metrics.interval import Interval
from medmoe.training.evaluation.report.markdown_table import percent, table
from medmoe.training.evaluation.report.results import REPORT_JSON

FOLDER = "image_disjoint"
_METRICS = {
    "closed": "closed_accuracy_legacy",
    "open": "open_recall_legacy",
    "accuracy": "accuracy",
}


def unseen_images(run: Path) -> str:
    """Return a section of Markdown, empty without the folder. Raises DataError when its report is no report."""
    path = run / FOLDER / REPORT_JSON
    if not path.exists():
        return ""
    try:
        report = json.loads(path.read_bytes())
        answered_by = report["provenance"]["answered_by"]
        rows = [_row(section) for section in report["sections"]]
        weights = str(answered_by["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is not the report of an evaluation") from error
    return (
        "### Images unseen\n\n"
        "Official test splits can share images with their train splits. Another checkpoint, trained by the same recipe "
        f"without the test images that its manifest leaves out (weights SHA-256 `{weights}`), reaches on the same "
        "questions, in percent with 95 % intervals:\n\n"
        + table(["dataset", "n", "on an image in train", *_METRICS], rows)
        + "\n\n"
    )


def _row(section: dict[str, Any]) -> list[str]:
    cells = [f"{section['dataset']} ({section['kind']})", str(int(section["n"])), str(int(section["in_train"]))]
    for name in _METRICS.values():
        found = section["scores"].get(name)
        cells.append(percent(None if found is None else Interval(**found)))
    return cells
