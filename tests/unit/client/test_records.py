"""JSONL, CSV and Parquet hold the same tasks."""

import json
from pathlib import Path

import pytest

from medmoe.client.batch.task_source import Tasks, read_tasks
from medmoe.client.errors import InvalidInput

RECORDS = [
    {"image": "a.png", "id": "007", "question": "What, then?\nSay it.", "max_tokens": 8, "ward": "seven"},
    {"image": "b.png", "labels": ["CT", "MRI"], "alpha": 0.1, "window": "40/400"},
]
COLUMNS = ["image", "id", "question", "labels", "max_tokens", "alpha", "window", "ward"]


def read(file: Path) -> Tasks:
    return read_tasks(file, question=None, labels=None, options={})


def json_lines(folder: Path) -> Path:
    file = folder / "in.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return file


def test_a_csv_file_says_the_same_as_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    # A spreadsheet writes delimiters alone for rows that look empty in it.
    rows = ['a.png,007,"What, then?\nSay it.",,8,,,seven', 7 * ",", 'b.png,,,"[""CT"", ""MRI""]",,0.1,40/400,', 7 * ","]
    file.write_bytes("\r\n".join([",".join(COLUMNS), *rows, ""]).encode("utf-8-sig"))
    assert read(file) == read(json_lines(tmp_path))
    assert read(file).notes == ("fields that are not sent: ward",)


def test_a_spreadsheet_may_write_semicolons_or_tabs(tmp_path: Path) -> None:
    for name, mark in (("in.csv", ","), ("semicolons.csv", ";"), ("tabs.tsv", "\t")):
        rows = (mark.join(("image", "question")), mark.join(("a.png", '"Is it; large, or small?"')))
        (tmp_path / name).write_text("\n".join(rows), encoding="utf-8-sig")
    commas, semicolons, tabs = (read(tmp_path / name) for name in ("in.csv", "semicolons.csv", "tabs.tsv"))
    assert commas.tasks[0].question == "Is it; large, or small?"
    assert semicolons == commas
    assert tabs == commas


@pytest.mark.parametrize("name", ["one.png", "list.xlsx", "IM0001"])
def test_a_file_of_another_kind_is_named_as_a_whole(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InvalidInput, match=r"is no folder, .*\.jsonl.*`medmoe ask`"):
        read(tmp_path / name)


def test_a_parquet_file_says_the_same_as_json_lines(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: make checks")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: make checks")
    rows = [{name: record.get(name) for name in COLUMNS} for record in RECORDS]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    assert read(tmp_path / "in.parquet") == read(json_lines(tmp_path))
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "in.parquet").read_bytes()[:-9])
    with pytest.raises(InvalidInput, match="no Parquet file"):
        read(tmp_path / "torn.parquet")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a.png,?,CT|MRI", r'line 2: labels is not JSON, such as \["CT", "MRI"\], true or 0\.5'),
        ("a.png,?," + "[" * 100_000, "line 2: labels is not JSON"),
        ("a.png,?,,more", "line 2: more cells"),
        (",?,", "line 2: image is missing"),
        ('a.png,"What?,', r"in\.csv is no CSV file in UTF-8"),
    ],
)
def test_a_wrong_row_of_a_csv_file_is_named(row: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"image,question,labels\n{row}\n")
    with pytest.raises(InvalidInput, match=problem):
        read(tmp_path / "in.csv")


def test_a_task_that_comes_twice_is_done_twice(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("image,question\na.png,What?\nb.png,What?\na.png,What?\n")
    assert len({task.key for task in read(tmp_path / "in.csv").tasks}) == 3


def test_a_csv_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("image,question,question\na.png,What?,Where?\n")
    with pytest.raises(InvalidInput, match=r"in\.csv names a column twice: question"):
        read(tmp_path / "in.csv")


def test_every_option_that_is_text_is_taken_literally_from_a_csv_file(tmp_path: Path) -> None:
    texts = {"model": "medmoe-tiny", "modality": "MR", "window": "lung", "store": "pacs"}
    (tmp_path / "in.csv").write_text(
        "\n".join((",".join(("image", "question", *texts)), "a.png,?," + ",".join(texts.values())))
    )
    (tmp_path / "in.jsonl").write_text(json.dumps({"image": "a.png", "question": "?"} | texts))
    assert read(tmp_path / "in.csv") == read(tmp_path / "in.jsonl")
