"""Read and write the output of a batch on a cluster: a folder of Parquet files, one for each block."""

import fcntl
import json
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medmoe.client.batch.result_format import cells_of
from medmoe.client.batch.result_line import ERROR, KEY, RESULT, Line
from medmoe.client.cluster.plan import Row
from medmoe.client.errors import InvalidInput

SCHEMA = pa.schema(
    [
        pa.field(KEY, pa.string(), nullable=False),
        ("id", pa.string()),
        pa.field("image", pa.string(), nullable=False),
        ("question", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("confidence", pa.float64()),
        ("calibrated", pa.bool_()),
        ("abstained", pa.bool_()),
        ("finish_reason", pa.string()),
        ("probabilities", pa.map_(pa.string(), pa.float64())),
        ("label_mass", pa.float64()),
        ("margin", pa.float64()),
        ("model", pa.string()),
        ("weights_sha256", pa.string()),
        ("image_sha256", pa.string()),
        ("error_type", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("result", pa.string()),
    ]
)
"""Columns of the output; `result` is the whole answer as JSON."""
_PATTERN = "part-*.parquet"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder and hold it for one run. Raises InvalidInput."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise InvalidInput(f"{folder} is being written by another run") from error
    except FileExistsError as error:
        raise InvalidInput(f"{folder} is a file; with --ray the output is a folder") from error


def read_rows(folder: Path) -> tuple[dict[str, Row], int]:
    """Return the rows of all partitions by key, and the number of rows whose key an earlier row has.

    Raises InvalidInput for a partition that a batch has not written.
    """
    rows: dict[str, Row] = {}
    doubled = 0
    for path in sorted(folder.glob(_PATTERN)):
        table = _read(path, columns=[KEY, "error_code", "image_sha256"])
        for row in table.to_pylist():
            doubled += row[KEY] in rows
            rows[row[KEY]] = Row(
                partition=path.name, failed=row["error_code"] is not None, image_sha256=row["image_sha256"]
            )
    return rows, doubled


def write_partition(path: Path, lines: Sequence[Line]) -> None:
    """Write the rows of a block atomically, in place of the partition's rows with the same keys.

    Raises InvalidInput when the file cannot be written.
    """
    table = pa.Table.from_pylist([_row(line) for line in lines], SCHEMA)
    if path.exists():
        old = _read(path, columns=None)
        new = set(table[KEY].to_pylist())
        table = pa.concat_tables([old.filter(pa.array([key not in new for key in old[KEY].to_pylist()])), table])
    # A name of its own: an actor that was given up for dead may still write the same partition.
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        try:
            with staging.open("wb") as file:
                if path.exists():
                    os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            os.replace(staging, path)
        finally:
            staging.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror or error}") from error


def answered_keys(path: Path) -> frozenset[str]:
    """Return the keys in a partition; none where there is no file. Raises InvalidInput."""
    return frozenset(_read(path, columns=[KEY])[KEY].to_pylist()) if path.exists() else frozenset()


def _read(path: Path, *, columns: list[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=columns)
            if not file.schema_arrow.equals(SCHEMA):
                raise InvalidInput(f"{path} is not what this version writes; name another folder")
            return table
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(f"{path} is no Parquet file; remove it, and its rows are asked again") from error


def _row(line: Line) -> dict[str, Any]:
    row: dict[str, Any] = {name: line[name] for name in (KEY, "id", "image", "question", "labels")}
    if line[ERROR] is not None:
        row |= {f"error_{name}": line[ERROR][name] for name in ("type", "code", "message")}
    else:
        row |= cells_of(line[RESULT]) | {RESULT: json.dumps(line[RESULT])}
        if isinstance(row["answer"], list):
            row["answer"] = json.dumps(row["answer"])
    return {name: _unicode(value) for name, value in row.items()}


def _unicode(value: Any) -> Any:
    """Return a text or a list of texts with escapes for what is no Unicode: file names may hold any bytes."""
    if isinstance(value, list):
        return [_unicode(one) for one in value]
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
