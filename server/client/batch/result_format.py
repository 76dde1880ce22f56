"""Encode result lines as JSONL or CSV, and read back what a later run needs."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medmoe.client.batch.result_line import ERROR, KEY, RESULT, Line
from medmoe.client.batch.task import Task

_LARGEST_CELL = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Key and state of an existing line."""

    key: str
    failed: bool
    image_sha256: str | None
    """Digest of the image that was answered; None for an error."""


class ResultFormat(Protocol):
    """Encode and decode lines of one file format."""

    header: bytes
    """First line of the file; may be empty."""
    start: bytes
    """First bytes of every other line."""

    def encode(self, line: Line) -> bytes:
        """Encode one line, which ends with its only line feed."""

    def decode(self, line: bytes) -> Written:
        """Decode a line. Raises ValueError for a line that this format does not write."""


def format_of(path: Path) -> ResultFormat:
    """Return the format of a file by its suffix. Raises ValueError for an unknown suffix."""
    match path.suffix.lower():
        case ".jsonl":
            return JsonLines()
        case ".csv":
            return Csv()
    raise ValueError("the output ends in .jsonl or in .csv")


class JsonLines:
    """JSONL with every field of the answers."""

    header = b""
    start = b'{"key": "q'

    def encode(self, line: Line) -> bytes:
        # File names may hold bytes that are no Unicode.
        return json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"

    def decode(self, line: bytes) -> Written:
        record = json.loads(line)
        if not isinstance(record, dict) or not {KEY, RESULT, ERROR} <= record.keys():
            raise ValueError("no result line")
        provenance = (record[RESULT] or {}).get("provenance", {})
        return Written(
            key=str(record[KEY]), failed=record[ERROR] is not None, image_sha256=provenance.get("image_sha256")
        )


class Csv:
    """CSV with lists as JSON; no cell is a formula."""

    columns = (
        KEY, "id", "image", "question", "labels", "answer", "confidence", "calibrated", "abstained", "finish_reason",
        "probabilities", "label_mass", "margin", "model", "weights_sha256", "image_sha256",
        "error_code", "error_message",
    )  # fmt: skip
    start = b'"q'

    def __init__(self) -> None:
        self.header = _row(self.columns)
        # The limit is process-wide, so it is only raised; long questions must be readable again.
        csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_CELL))

    def encode(self, line: Line) -> bytes:
        cells = {name: line[name] for name in (KEY, "id", "image", "question", "labels")}
        if line[ERROR] is not None:
            cells |= {"error_code": line[ERROR]["code"], "error_message": line[ERROR]["message"]}
        else:
            cells |= cells_of(line[RESULT])
        return _row([_cell(cells.get(name)) for name in self.columns])

    def decode(self, line: bytes) -> Written:
        try:
            (cells,) = csv.reader([line.decode()], strict=True)
        except csv.Error as error:
            raise ValueError("no row") from error
        row = dict(zip(self.columns, cells, strict=True))
        return Written(key=row[KEY], failed=bool(row["error_code"]), image_sha256=row["image_sha256"] or None)


def cells_of(result: Line) -> Line:
    """Return the columns of a table that are read from an answer."""
    provenance = result["provenance"]
    cells = {
        "abstained": result["abstained"],
        "model": result["model"],
        "weights_sha256": provenance["weights_sha256"],
        "image_sha256": provenance["image_sha256"],
    }
    if "answer" in result:
        confidence = result["confidence"] or {}
        return cells | {
            "answer": result["answer"],
            "confidence": confidence.get("value"),
            "calibrated": confidence.get("calibrated"),
            "finish_reason": result["finish_reason"],
        }
    probabilities = {one["label"]: one["probability"] for one in result["probabilities"]}
    several = result["mode"] == "multi_label"
    return cells | {
        "answer": result["labels"] if several else result["label"],
        # In multi_label each label has its own confidence.
        "confidence": None if several else probabilities[result["label"]],
        "calibrated": result["calibration"] is not None,
        "probabilities": probabilities,
        "label_mass": result.get("label_mass"),
        "margin": result.get("margin"),
    }


_WITHOUT_COLUMN = {"alpha": "prediction set", "include_report": "report", "include_routing": "routing"}


def left_out(path: Path, tasks: Iterable[Task]) -> str:
    """Return what the tasks ask for and a CSV file at `path` has no column for; nothing for JSONL."""
    if path.suffix.lower() != ".csv":
        return ""
    asked = {name for task in tasks for name, value in task.options.items() if value is not None and value is not False}
    return ", ".join(what for name, what in _WITHOUT_COLUMN.items() if name in asked)


_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of formulas in spreadsheets, including full-width forms."""


def _cell(value: Any) -> str:
    """Return a cell without control characters that no spreadsheet reads as a formula. Numbers are never negative."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # Line breaks would split the row.
    text = "".join(" " if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" else c for c in text)
    # Some programs trim a cell before they parse it.
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _row(cells: Sequence[str]) -> bytes:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(cells)
    return file.getvalue().encode(errors="backslashreplace")
