"""SLAKE as published: two languages, knowledge questions, one answer that the release forgot."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medmoe.training.config import Split
from medmoe.training.data.errors import DatasetError
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.slake import read_slake


def record(qid: Any, **fields: Any) -> dict[str, Any]:
    known = {
        "img_id": 1,
        "img_name": "xmlab1/source.jpg",
        "question": f"Question {qid}?",
        "answer": "Liver",
        "q_lang": "en",
        "location": "Abdomen",
        "modality": "MRI",
        "answer_type": "OPEN",
        "base_type": "vqa",
        "content_type": "Organ",
        "triple": ["vhead", "_", "_"],
        "qid": qid,
    }
    return known | fields


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2):
        (tmp_path / "slake" / "imgs" / f"xmlab{number}").mkdir(parents=True)
        Image.new("L", (4, 4), number).save(tmp_path / "slake" / "imgs" / f"xmlab{number}" / "source.jpg")
    return tmp_path / "slake"


def read(folder: Path, *items: Any, split: Split = "train") -> ReadResult:
    (folder / "train.json").write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    return read_slake(folder / "train.json", split=split)


def test_record_becomes_a_question(folder: Path) -> None:
    (sample,) = read(folder, record(7, modality="X-Ray", answer_type="CLOSED")).samples
    assert (sample.id, sample.dataset, sample.split) == ("slake/7", "slake", "train")
    assert (sample.modality, sample.answer_type, sample.question_type) == ("X-ray", "closed", "Organ")
    assert sample.image == folder / "imgs" / "xmlab1" / "source.jpg"


def test_english_alone_is_read_and_the_rest_counted(folder: Path) -> None:
    items = [record(1), record(2, q_lang="zh", question="图中有什么?", answer="肝脏")]
    result = read(folder, *items)
    assert [sample.id for sample in result.samples] == ["slake/1"]
    assert result.excluded == {"language zh": 1}


def test_knowledge_questions_stay(folder: Path) -> None:
    (sample,) = read(folder, record(3, base_type="kvqa", content_type="KG")).samples
    assert sample.question_type == "KG"


def test_the_answer_that_the_release_forgot_is_counted_and_no_other_one(folder: Path) -> None:
    forgotten = read(folder, record(1622, answer=""))
    assert (forgotten.bad, forgotten.excluded) == ((), {"no answer in the release": 1})
    assert "answer is blank" in read(folder, record(1623, answer="")).bad[0].reason
    assert "answer is blank" in read(folder, record(1622, answer=""), split="test").bad[0].reason


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (record(9, img_name="xmlab9/source.jpg"), "missing"),
        (record(9, img_name="../train.json"), "leaves the dataset's folder"),
        (record(9, answer_type="YES"), "answer_type"),
        (record(9, answer_type=None), "answer_type is missing"),
        (record(9, q_lang="fr"), "q_lang"),
        (record(9, modality="PET"), "modality"),
        (record(9, question=""), "question is blank"),
    ],
)
def test_broken_record_is_reported_with_its_place(folder: Path, broken: Any, reason: str) -> None:
    result = read(folder, record(1), broken)
    assert [sample.id for sample in result.samples] == ["slake/1"]
    assert (result.bad[0].file, result.bad[0].place) == ("train.json", 2)
    assert reason in result.bad[0].reason


@pytest.mark.parametrize("text", ["{}", "[", "[" * 200_000], ids=["an object", "cut off", "nested too deeply"])
def test_file_that_is_no_list_is_an_error(folder: Path, text: str) -> None:
    (folder / "train.json").write_text(text)
    with pytest.raises(DatasetError, match=r"train\.json"):
        read_slake(folder / "train.json", split="train")
