"""VQA-RAD as published: stray blanks, numbers for answers, the official split, and records that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medmoe.training.config import Split
from medmoe.training.data.errors import DatasetError
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.vqa_rad import IMAGE_FOLDERS, PUBLIC_FILE, read_vqa_rad

BOTH: tuple[Split, ...] = ("train", "test")


def record(qid: Any, **fields: Any) -> dict[str, Any]:
    known = {
        "qid": qid,
        "image_name": f"synpic{qid}.jpg",
        "image_organ": "CHEST",
        "question": f"Is number {qid} normal?",
        "answer": "Yes",
        "answer_type": "CLOSED",
        "question_type": "ABN",
        "phrase_type": "freeform",
    }
    return known | fields


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "rad" / IMAGE_FOLDERS[0]
    images.mkdir(parents=True)
    for number in range(10):
        Image.new("L", (4, 4), number).save(images / f"synpic{number}.jpg")
    (tmp_path / "secret.jpg").write_bytes(b"outside")
    (images / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    return tmp_path / "rad"


def read(folder: Path, *items: Any, splits: tuple[Split, ...] = BOTH) -> ReadResult:
    (folder / PUBLIC_FILE).write_text(json.dumps(items))
    return read_vqa_rad(folder / PUBLIC_FILE, splits=splits)


def test_record_becomes_a_question_with_its_folder_in_the_id(folder: Path) -> None:
    (sample,) = read(folder, record(1)).samples
    assert (sample.id, sample.dataset, sample.split) == ("rad/1", "rad", "train")
    assert (sample.question, sample.answer, sample.answer_type) == ("Is number 1 normal?", "Yes", "closed")
    assert sample.image == folder / IMAGE_FOLDERS[0] / "synpic1.jpg"


def test_blanks_numbers_and_spellings_of_the_release_are_understood(folder: Path) -> None:
    item = record(
        2, question=" How many?\t", answer=3, answer_type="OPEN ", question_type="PRSE, ATRIB ", image_organ="ABD "
    )
    (sample,) = read(folder, item).samples
    assert (sample.question, sample.answer, sample.answer_type) == ("How many?", "3", "open")
    assert sample.question_type == "ATTRIB,PRES"


@pytest.mark.parametrize(("organ", "modality"), [("CHEST", "X-ray"), ("ABD", "CT"), ("HEAD", None), (None, None)])
def test_modality_follows_from_the_organ_where_the_design_says_so(
    folder: Path, organ: str | None, modality: str | None
) -> None:
    assert read(folder, record(1, image_organ=organ)).samples[0].modality == modality


def test_phrase_type_is_the_official_split(folder: Path) -> None:
    kinds = ("freeform", "para", "test_freeform", "test_para")
    items = [record(number, phrase_type=kind) for number, kind in enumerate(kinds)]
    assert [sample.split for sample in read(folder, *items).samples] == ["train", "train", "test", "test"]
    result = read(folder, *items, splits=("test",))
    assert [sample.id for sample in result.samples] == ["rad/2", "rad/3"]
    assert result.excluded == {"split train": 2}


def test_test_questions_on_training_pictures_are_marked(folder: Path) -> None:
    items = [
        record(1),
        record(2, image_name="synpic1.jpg", phrase_type="test_para"),
        record(3, phrase_type="test_para"),
    ]
    assert [sample.image_in_train for sample in read(folder, *items, splits=("test",)).samples] == [True, False]


def test_training_loses_repeats_of_itself_and_of_the_test(folder: Path) -> None:
    same = {"image_name": "synpic1.jpg", "question": "Same?"}
    items = [record(1, **same), record(2, **same | {"question": "same? "}), record(3), record(4, question="Other?")]
    items.append(record(5, image_name="synpic3.jpg", question="Is number 3 normal?", phrase_type="test_freeform"))
    result = read(folder, *items)
    assert [sample.id for sample in result.samples] == ["rad/1", "rad/4", "rad/5"]
    assert result.excluded == {"repeat of another record": 2}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (record(9, image_name="gone.jpg"), "missing"),
        (record(9, image_name="../../secret.jpg"), "leaves the dataset's folder"),
        (record(9, image_name="/etc/hostname"), "leaves the dataset's folder"),
        (record(9, image_name="link.jpg"), "link that leaves"),
        (record(9, image_name="a" * 5000), "missing"),
        (record(1, question="Another?"), "id is used"),
        (record(9, answer="  "), "answer is blank"),
        (record(9, answer=float("nan")), "answer is not text"),
        (record(9, answer=None), "answer is not text"),
        (record(9, answer_type="MAYBE"), "answer_type"),
        ({key: value for key, value in record(9).items() if key != "answer_type"}, "answer_type is missing"),
        (record(9, phrase_type="dev"), "phrase_type"),
        (record(True), "qid"),
        ([1], "not a JSON object"),
    ],
)
def test_broken_record_is_reported_with_its_place(folder: Path, broken: Any, reason: str) -> None:
    result = read(folder, record(1), broken, record(2))
    assert [sample.id for sample in result.samples] == ["rad/1", "rad/2"]
    (bad,) = result.bad
    assert (bad.file, bad.place) == (PUBLIC_FILE, 2)
    assert reason in bad.reason


def test_reasons_never_quote_what_a_record_says(folder: Path) -> None:
    canary = record(9, image_name="../CANARY", question="CANARY", phrase_type="CANARY", answer_type="CANARY")
    assert "CANARY" not in read(folder, canary).summary()


def test_missing_image_folder_is_an_error(folder: Path) -> None:
    (folder / IMAGE_FOLDERS[0]).rename(folder / "elsewhere")
    with pytest.raises(DatasetError, match="no image folder"):
        read(folder, record(1))


def test_image_folder_may_itself_be_a_link(folder: Path, tmp_path: Path) -> None:
    (folder / IMAGE_FOLDERS[0]).rename(tmp_path / "disk")
    (folder / IMAGE_FOLDERS[0]).symlink_to(tmp_path / "disk")
    assert len(read(folder, record(1)).samples) == 1
