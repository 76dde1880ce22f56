"""A result line as bytes, and as much of it read back as continuing needs: JSONL, or CSV for spreadsheets."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medmoe.client.batch.result_line import ERROR, KEY, RESULT, Line

_LARGEST_CELL = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A line that is there already."""

    key: str
    failed: bool


class ResultFormat(Protocol):
    header: bytes
    """First line of the file; may be nothing."""
    start: bytes
    """How every other line begins."""

    def encode(self, line: Line) -> bytes:
        """One line, its line feed included, with no other line feed in it."""

    def decode(self, line: bytes) -> Written:
        """Raises ValueError for a line that this format does not write."""


def format_of(path: Path) -> ResultFormat:
    """By the file's ending. Raises ValueError for another."""
    match path.suffix.lower():
        case ".jsonl":
            return JsonLines()
        case ".csv":
            return Csv()
    raise ValueError("the output ends in .jsonl or in .csv")


class JsonLines:
    """Everything that was answered."""

    header = b""
    start = b'{"key": "q'

    def encode(self, line: Line) -> bytes:
        # A file name that is no Unicode is escaped, which JSON has a way to say.
        return json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"

    def decode(self, line: bytes) -> Written:
        record = json.loads(line)
        if not isinstance(record, dict) or not {KEY, RESULT, ERROR} <= record.keys():
            raise ValueError("no result line")
        return Written(key=str(record[KEY]), failed=record[ERROR] is not None)


class Csv:
    """A row for each line, lists as JSON. No cell is a formula, whoever wrote what stands in it."""

    columns = (
        KEY, "id", "image", "question", "labels", "answer", "confidence", "calibrated", "abstained", "finish_reason",
        "probabilities", "label_mass", "margin", "model", "weights_sha256", "image_sha256",
        "error_code", "error_message",
    )  # fmt: skip
    start = b'"q'

    def __init__(self) -> None:
        self.header = _row(self.columns)
        # For the whole process, hence never lowered: what is written here, a long question say, must be read again.
        csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_CELL))

    def encode(self, line: Line) -> bytes:
        cells = {name: line[name] for name in (KEY, "id", "image", "question", "labels")}
        if line[ERROR] is not None:
            cells |= {"error_code": line[ERROR]["code"], "error_message": line[ERROR]["message"]}
        else:
            cells |= _cells_of(line[RESULT])
        return _row([_cell(cells.get(name)) for name in self.columns])

    def decode(self, line: bytes) -> Written:
        try:
            (cells,) = csv.reader([line.decode()], strict=True)
        except csv.Error as error:
            raise ValueError("no row") from error
        row = dict(zip(self.columns, cells, strict=True))
        return Written(key=row[KEY], failed=bool(row["error_code"]))


def _cells_of(result: Line) -> Line:
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
        # Of several labels each has its own.
        "confidence": None if several else probabilities[result["label"]],
        "calibrated": result["calibration"] is not None,
        "probabilities": probabilities,
        "label_mass": result.get("label_mass"),
        "margin": result.get("margin"),
    }


_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Beginnings that spreadsheets calculate with, wide ones included."""


def _cell(value: Any) -> str:
    """Numbers as they are, none of ours is negative; text without control characters, and never a formula."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # Line breaks would tear the row apart, and the rest has no business in a table.
    text = "".join(" " if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" else c for c in text)
    # Behind blanks too: some programs trim a cell before they look at it.
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _row(cells: Sequence[str]) -> bytes:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(cells)
    return file.getvalue().encode(errors="backslashreplace")
