"""Read the cells of a CSV or TSV file."""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medmoe.client.batch.records import delimiter
from medmoe.training.data.errors import DatasetError, SampleError
from medmoe.training.data.readers.json_items import NumberedItem

if TYPE_CHECKING:
    from _csv import Reader

_ENDINGS = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Spreadsheet:
    """Hold the columns of a file, in lower case, and its rows."""

    columns: tuple[str, ...]
    rows: tuple[NumberedItem, ...]
    """The last line of each row, counted from the header's, and the cells that hold anything, by column; a SampleError
    stands for a row with more cells than columns."""


def is_spreadsheet(path: Path) -> bool:
    """Return whether `path` is a CSV or TSV file by its name."""
    return path.suffix.lower() in _ENDINGS


def read_columns(file: Path) -> tuple[str, ...]:
    """Return the column names in lower case; none of a header that is no row of cells. Raises DatasetError."""
    try:
        return _columns(_cells(_text(file)))
    except csv.Error:
        return ()


def read_spreadsheet(file: Path) -> Spreadsheet:
    """Read a file whose cells are divided by commas, semicolons or tabs.

    Raises DatasetError when it cannot be read, names a column twice, or has a quotation mark that is not closed.
    """
    cells = _cells(_text(file))
    try:
        columns = _columns(cells)
        if repeated := [name for name, count in Counter(filter(None, columns)).items() if count > 1]:
            raise DatasetError(f"{file} names a column twice: {', '.join(repeated)}; rename or remove one")
        # A spreadsheet writes delimiters alone for rows that look empty in it.
        rows = tuple((cells.line_num, _row(row, columns)) for row in cells if any(cell.strip() for cell in row))
    except csv.Error as error:
        raise DatasetError(
            f"{file} cannot be read as a table at line {cells.line_num}: {error}; a cell that begins with a quotation "
            "mark needs one at its end, and doubled ones inside"
        ) from error
    return Spreadsheet(columns, rows)


def _cells(text: str) -> "Reader":
    header = text.split("\n", 1)[0]
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(header), strict=True)


def _columns(cells: "Reader") -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in next(cells, []))


def _row(cells: list[str], columns: tuple[str, ...]) -> dict[str, str] | SampleError:
    if any(cell.strip() for cell in cells[len(columns) :]):
        return SampleError("more cells than columns; put a cell that holds the delimiter in quotation marks")
    return {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if name and cell.strip()}


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not UTF-8 text; save it as CSV in UTF-8") from error
