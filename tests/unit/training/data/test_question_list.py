"""Plain question lists, as PathVQA's pickles and the Hub's parquet are exported to."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medmoe.training.config import Split
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.question_list import read_question_list

ITEM: dict[str, Any] = {"image": "train_0001", "question": "Where is this from?", "answer": "liver"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        (tmp_path / "path" / "images" / split).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "path" / "images" / split / f"{split}_0001.jpg")
    return tmp_path / "path"


def read(folder: Path, *items: Any, split: Split = "train", file: str = "x.json") -> ReadResult:
    lines = [item if isinstance(item, str) else json.dumps(item) for item in items]
    (folder / file).write_text("\n".join(lines) if file.endswith("l") else f"[{','.join(lines)}]")
    return read_question_list(folder / file, split=split, directory=folder)


def test_image_is_found_without_its_ending_in_the_splits_folder(folder: Path) -> None:
    (sample,) = read(folder, ITEM).samples
    assert sample.image == folder / "images" / "train" / "train_0001.jpg"
    (other,) = read(folder, ITEM | {"image": "images/test/test_0001.jpg"}, split="test").samples
    assert other.image == folder / "images" / "test" / "test_0001.jpg"


def test_an_id_of_its_own_is_kept(folder: Path) -> None:
    for field in ("id", "qid", "question_id"):
        assert read(folder, ITEM | {field: 7}).samples[0].id == "path/train/7"


def test_ids_without_one_do_not_depend_on_the_order(folder: Path) -> None:
    items = [ITEM, ITEM | {"answer": "spleen"}, ITEM | {"question": "What is it?"}]
    forward = {sample.id: (sample.question, sample.answer) for sample in read(folder, *items).samples}
    backward = {sample.id: (sample.question, sample.answer) for sample in read(folder, *items[::-1]).samples}
    assert len(forward) == 3
    assert forward == backward


def test_whole_repeats_stay_with_ids_of_their_own(folder: Path) -> None:
    first, second, third = read(folder, ITEM, ITEM, ITEM).samples
    assert (second.id, third.id) == (f"{first.id}-2", f"{first.id}-3")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [({"answer": "Yes"}, "closed"), ({}, "open"), ({"answer": "left", "answer_type": "CLOSED "}, "closed")],
)
def test_yes_and_no_are_closed_unless_the_item_says_otherwise(folder: Path, fields: dict[str, str], kind: str) -> None:
    assert read(folder, ITEM | fields).samples[0].answer_type == kind


def test_json_lines_are_read_and_a_broken_line_is_reported(folder: Path) -> None:
    result = read(folder, ITEM, "{broken", "", ITEM | {"answer": "no"}, file="x.jsonl")
    assert len(result.samples) == 2
    assert [(bad.place, bad.reason) for bad in result.bad] == [(2, "malformed JSON")]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (ITEM | {"image": "train_0009"}, "missing"),
        (ITEM | {"image": "../x"}, "leaves"),
        (ITEM | {"image": {"bytes": "AAAA"}}, "image is not text"),
        (ITEM | {"answer": " "}, "answer is blank"),
        (ITEM | {"answer_type": "other"}, "answer_type"),
        (ITEM | {"image": "twice"}, "several files"),
    ],
)
def test_broken_item_is_reported_with_its_place(folder: Path, broken: Any, reason: str) -> None:
    for name in ("twice.jpg", "train/twice.jpg"):
        Image.new("L", (2, 2)).save(folder / "images" / name)
    result = read(folder, ITEM, broken)
    assert len(result.samples) == 1
    assert result.bad[0].place == 2
    assert reason in result.bad[0].reason


def test_an_item_names_the_patient_of_its_image(folder: Path) -> None:
    found = read(folder, ITEM | {"PatientID": "p7"}, ITEM | {"question": "What is it?"})
    assert [sample.group for sample in found.samples] == ["p7", "p7"]
