"""Read the records of a batch's input file: JSONL, CSV or Parquet."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

from medmoe.client.batch.task import FIELDS
from medmoe.client.errors import InvalidInput
from medmoe.client.options import AskOptions, ClassifyOptions

Record = dict[str, Any]
Numbered = tuple[int, Record | InvalidInput]
"""Number of a line or row, from 1, and its record or what is wrong with it."""

_TEXTS = frozenset({"image", "id", "question", "mode"}).union(
    *(
        {name for name, type_ in get_type_hints(kind).items() if str in get_args(type_)}
        for kind in (AskOptions, ClassifyOptions)
    )
)
"""Columns of a CSV file that are taken literally; the others hold JSON."""
_DELIMITERS = ",;\t"
_COLUMNS = FIELDS | {"image", "id", "question", "labels"}


def read_records(file: Path) -> Iterator[Numbered]:
    """Yield the records of a file without their empty fields.

    Raises InvalidInput for a file that cannot be read, or whose suffix is of no such format.
    """
    read = _READERS.get(file.suffix.lower())
    if read is None:
        raise InvalidInput(f"{file} is no folder, {', '.join(_READERS)}; `medmoe ask` asks about one image")
    try:
        yield from read(file)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror or error}") from error


def json_lines(file: Path) -> Iterator[Numbered]:
    """Yield the objects of a JSON Lines file without their empty fields. Raises OSError."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _json_record(line)


def _json_record(line: bytes) -> Record | InvalidInput:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return InvalidInput("not JSON")
    return _without_empty(record) if isinstance(record, dict) else InvalidInput("not a JSON object")


def _csv(file: Path) -> Iterator[Numbered]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        try:
            header = text.readline()
            text.seek(0)
            reader = csv.DictReader(text, delimiter=delimiter(header), strict=True)
            columns = Counter(filter(None, reader.fieldnames or ()))
            if repeated := [name for name, count in columns.items() if count > 1]:
                raise InvalidInput(f"{file} names a column twice: {', '.join(repeated)}")
            for row in reader:
                # A spreadsheet writes delimiters alone for rows that look empty in it.
                if any(row.values()):
                    yield reader.line_num, _csv_record(row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InvalidInput(f"{file} is no CSV file in UTF-8: {error}") from error


def delimiter(header: str) -> str:
    """Return what divides cells: spreadsheets write semicolons where the comma is the decimal point."""
    return max(_DELIMITERS, key=header.count)


def _csv_record(row: dict[str | None, Any]) -> Record | InvalidInput:
    if None in row:
        return InvalidInput("more cells than the header has")
    record: Record = {}
    for name, cell in row.items():
        if not name or not cell:
            continue
        record[name] = cell
        if name in _COLUMNS - _TEXTS:
            try:
                record[name] = json.loads(cell)
            except (ValueError, RecursionError):
                return InvalidInput(f'{name} is not JSON, such as ["CT", "MRI"], true or 0.5')
    return record


def _parquet(file: Path) -> Iterator[Numbered]:
    # Imported here because only the extra `ray` brings it.
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise InvalidInput(f"{file.name} needs the package pyarrow: pip install pyarrow") from error

    try:
        with pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            # Of a column that is not sent only the name is needed; it may hold whole images.
            others = {name: True for name in names if name not in _COLUMNS}
            number = 0
            for batch in parquet.iter_batches(columns=[name for name in names if name in _COLUMNS]):
                for record in batch.to_pylist():
                    number += 1
                    yield number, _without_empty(record | others)
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{file} is no Parquet file") from error


def _without_empty(record: Record) -> Record:
    return {name: value for name, value in record.items() if value is not None}


_READERS: dict[str, Callable[[Path], Iterator[Numbered]]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
