"""The output of a batch: whole lines, nobody else's file, no formulas."""

import csv
import io
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from medmoe.client.answers.vqa import VqaAnswer
from medmoe.client.batch.result_file import ResultFile
from medmoe.client.batch.result_format import Csv, JsonLines, left_out
from medmoe.client.batch.result_line import Line, answered, failed
from medmoe.client.batch.task import Task
from medmoe.client.errors import InvalidInput
from tests.support.service.client_answer import ANSWER


def task(number: int, **fields: Any) -> Task:
    given = {"image": f"{number}.png", "question": "What?"} | fields
    return Task(path=Path(given["image"]), **given)


def line(number: int, *, answer: str = "yes", error: bool = False, **fields: Any) -> Line:
    asked = task(number, **fields)
    if error:
        return failed(asked, InvalidInput("no"))
    return answered(asked, VqaAnswer.model_validate(ANSWER | {"answer": answer}))


@pytest.fixture(params=["jsonl", "csv"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"out.{request.param}"


def write(path: Path, *written: Line) -> bytes:
    with ResultFile(path) as file:
        for one in written:
            file.append(one)
    return path.read_bytes()


def test_wherever_a_run_is_cut_off_only_the_unfinished_line_is_lost(path: Path) -> None:
    whole = write(path, *map(line, range(3)))
    ends = [place + 1 for place, byte in enumerate(whole) if byte == 10]
    heads = ends[1:] if path.suffix == ".csv" else ends
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with ResultFile(path) as file:
            assert len(file.done) == sum(end <= cut for end in heads)
            for number in range(len(file.done), 3):
                file.append(line(number))
        assert path.read_bytes() == whole


def test_what_is_there_is_known_and_told_from_errors(path: Path) -> None:
    write(path, line(0), line(1, error=True), line(2))
    with ResultFile(path) as file:
        assert list(file.done) == [task(number).key for number in range(3)]
        assert file.failed == {task(1).key}
        file.drop(file.failed)
        assert list(file.done) == [task(0).key, task(2).key]
        file.append(line(1))
        file.arrange([task(number).key for number in range(3)])
    assert path.read_bytes() == write(path.with_stem("other"), *map(line, range(3)))
    assert sorted(one.name for one in path.parent.iterdir()) == sorted([path.name, path.with_stem("other").name])


def test_lines_of_other_inputs_are_kept_in_front(path: Path) -> None:
    write(path, line(9), line(1), line(0))
    with ResultFile(path) as file:
        file.arrange([task(number).key for number in range(2)])
    assert path.read_bytes() == write(path.with_stem("other"), line(9), line(0), line(1))


@pytest.mark.parametrize(
    "content", [b"notes", b"notes\n", b'{"key": 1}\n', b"[]\n", b'"a","b"\n', b"\n", b'{"other": "file"', b"\xff\xfe\n"]
)
def test_a_file_that_a_batch_has_not_written_is_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="not what a batch writes"):
        ResultFile(path)
    assert path.read_bytes() == content
    whole = write(path.with_stem("whole"), line(0))
    path.write_bytes(whole + content)
    with pytest.raises(InvalidInput):
        ResultFile(path)
    assert path.read_bytes() == whole + content


def test_a_line_that_comes_twice_is_nothing_that_a_batch_writes(path: Path) -> None:
    with ResultFile(path) as file:
        file.append(line(0))
        file.append(line(0))
    with pytest.raises(InvalidInput, match="twice"):
        ResultFile(path)


def test_two_runs_do_not_write_one_file(path: Path) -> None:
    with ResultFile(path) as first:
        with pytest.raises(InvalidInput, match="another process"):
            ResultFile(path)
        first.append(line(1))
        first.append(line(0))
        first.arrange([task(0).key, task(1).key])
        with pytest.raises(InvalidInput, match="another process"):
            ResultFile(path)
    with ResultFile(path) as second:
        assert len(second.done) == 2


def test_a_folder_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be written"):
        ResultFile(tmp_path / "none" / "out.csv")
    with pytest.raises(ValueError, match=r"\.csv"):
        ResultFile(tmp_path / "out.txt")


ROGUES = ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n=1", "\uff1d1", "=cmd|' /C calc'!A0", "\u00a0=1"]


@pytest.mark.parametrize("rogue", ROGUES)
def test_no_cell_is_a_formula_whoever_wrote_it(rogue: str) -> None:
    written = line(0, answer=rogue, image=rogue, question=rogue, id=rogue, labels=(rogue,))
    refused = failed(task(0), InvalidInput(rogue))
    for one in (written, refused):
        data = Csv().encode(one)
        assert data.count(b"\n") == 1
        (cells,) = csv.reader(io.StringIO(data.decode()))
        for cell in cells:
            assert not cell.strip().startswith(("=", "+", "-", "@", "\uff1d")), cell
            assert not any(ord(letter) < 32 for letter in cell)
    assert any(cell.startswith("'") for cell in cells)


@pytest.mark.parametrize("text", ["a, b; \"c\" 'd'", "caf\u00e9 \u4e2d\u6587", "2 - 1", "no = yes", "1e5"])
def test_harmless_text_is_written_as_it_is(text: str) -> None:
    (cells,) = csv.reader(io.StringIO(Csv().encode(line(0, answer=text)).decode()))
    assert dict(zip(Csv.columns, cells, strict=True))["answer"] == text
    assert json.loads(JsonLines().encode(line(0, answer=text)))["result"]["answer"] == text


@pytest.mark.parametrize("text", ["a\nb", "a\u2028b\x85c", "\udcff.png", "\x00"])
def test_a_line_is_one_line_whatever_it_holds(path: Path, text: str) -> None:
    write(path, line(0, image=text, answer="a\nb\u2028"), line(1))
    assert path.read_bytes().count(b"\n") == 2 + (path.suffix == ".csv")
    with ResultFile(path) as file:
        assert list(file.done) == [task(0, image=text).key, task(1).key]
    if path.suffix == ".jsonl":
        assert json.loads(path.read_bytes().split(b"\n")[0])["image"] == text


def test_what_differs_from_run_to_run_is_not_written() -> None:
    one = VqaAnswer.model_validate(ANSWER)
    other = one.model_copy(update={"id": "vqa-2", "timings": None, "usage": None})
    assert answered(task(0), one) == answered(task(0), other)


def test_whatever_would_be_answered_differently_has_another_key() -> None:
    variants = [
        task(0), task(1), task(0, question="Why?"), task(0, labels=("CT",)), task(0, labels=("CT", "MRI")),
        task(0, id="7"), task(0, options={"window": "lung"}), task(0, options={"window": "bone"}), task(0, repeat=1),
    ]  # fmt: skip
    assert len({one.key for one in variants}) == len(variants)
    assert task(0, options={"a": 1, "b": 2}).key == task(0, options={"b": 2, "a": 1}).key


def test_a_file_that_is_rewritten_keeps_its_permissions_and_the_link_to_it(path: Path) -> None:
    link = path.with_name(f"link{path.suffix}")
    link.symlink_to(path)
    write(link, line(0), line(1, error=True))
    path.chmod(0o600)
    with ResultFile(link) as file:
        file.drop(file.failed)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with ResultFile(path) as file:
        assert list(file.done) == [task(0).key]


def test_a_question_of_any_length_can_be_read_again(path: Path) -> None:
    write(path, line(0, question="x" * 200_000))
    with ResultFile(path) as file:
        assert list(file.done) == [task(0, question="x" * 200_000).key]


@pytest.mark.parametrize("strange", ['"q1"x,\n', '"q' + "1" * 10 + "\n", "[" * 100_000 + "\n"])
def test_a_line_that_no_reader_can_take_is_foreign(path: Path, strange: str) -> None:
    whole = write(path, line(0))
    path.write_bytes(whole + strange.encode())
    with pytest.raises(InvalidInput, match="is not what a batch writes"):
        ResultFile(path)
    assert path.read_bytes() == whole + strange.encode()


def test_what_is_asked_for_and_has_no_column_is_named() -> None:
    asked = [{"alpha": 0.1, "include_routing": False}, {"include_report": True, "window": "lung"}]
    tasks = [Task(path=Path("a"), image="a", question="?", options=options) for options in asked]
    assert left_out(Path("out.csv"), tasks) == "prediction set, report"
    assert left_out(Path("out.jsonl"), tasks) == ""
