"""Write a report to disk."""

import json
from pathlib import Path
from typing import Any

from medmoe.training.atomic_file import write_atomically
from medmoe.training.data.errors import DataError
from medmoe.training.evaluation.report.markdown import markdown
from medmoe.training.evaluation.report.plots import can_draw, draw_report
from medmoe.training.evaluation.report.report import Report

REPORT_JSON, REPORT_MARKDOWN = "report.json", "report.md"


def write_results(report: Report, directory: Path, *, provenance: dict[str, Any], training_report: Path | None) -> None:
    """Fill `directory`; files of an earlier evaluation there are replaced. Without matplotlib there are no plots.

    `training_report` is the report.json of a training run, for its losses. Raises DataError when it is not one.
    """
    losses = {} if training_report is None else read_losses(training_report)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / REPORT_JSON, report.to_json(provenance=provenance))
    figures = draw_report(report, directory, losses=losses) if can_draw() else {}
    write_atomically(directory / REPORT_MARKDOWN, _page(report, provenance=provenance, figures=figures))


def read_losses(path: Path) -> dict[str, list[dict[str, float]]]:
    """Return by stage what a training run logged: `step` and `loss`."""
    try:
        stages = json.loads(path.read_bytes())
        losses = {
            name: [{"step": row["step"], "loss": row["loss"]} for row in found["losses"]]
            for name, found in stages.items()
            if "losses" in found
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not the report of a training run") from error
    return {name: rows for name, rows in losses.items() if rows}


def _page(report: Report, *, provenance: dict[str, Any], figures: dict[str, str]) -> str:
    asked = provenance["answered_by"] | provenance["settings"]
    answered_by = "\n".join(
        f"- {name}: `{value}`" for name, value in asked.items() if value is not None and value is not False
    )
    data = "\n".join(map(_data_line, provenance["data"]))
    images = "\n\n".join(f"![{title}]({name})" for name, title in figures.items())
    return (
        "# Evaluation\n\nResearch software, not a medical device.\n\n"
        f"    {provenance['command']}\n\n"
        f"{provenance['created']}, commit {provenance['commit'] or 'unknown'}\n\n"
        f"{answered_by}\n{data}\n\n## Scores\n\n{markdown(report)}" + (f"\n## Figures\n\n{images}\n" if images else "")
    )


def _data_line(file: dict[str, Any]) -> str:
    digest = file["records_sha256"]
    records = f", records SHA-256 `{digest}`" if digest else ""
    return f"- {file['dataset']}, {file['split']}: {file['samples']} samples{records}"
