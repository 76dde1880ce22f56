"""VQA-RAD as published: stray blanks, numbers for answers, the official split, and records that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medmoe.training.config import Split
from medmoe.training.data.errors import DatasetError
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.vqa_rad import IMAGE_FOLDERS, PUBLIC_FILE, read_vqa_rad


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


def read(folder: Path, *items: Any, split: Split = "train") -> ReadResult:
    (folder / PUBLIC_FILE).write_text(json.dumps(items))
    return read_vqa_rad(folder / PUBLIC_FILE, split=split)


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
    assert [sample.id for sample in read(folder, *items).samples] == ["rad/0", "rad/1"]
    result = read(folder, *items, split="test")
    assert [sample.id for sample in result.samples] == ["rad/2", "rad/3"]
    assert result.excluded == {"split train": 2}


def test_test_questions_on_training_images_are_marked(folder: Path) -> None:
    items = [
        record(1),
        record(2, image_name="synpic1.jpg", phrase_type="test_para"),
        record(3, phrase_type="test_para"),
    ]
    assert [sample.image_in_train for sample in read(folder, *items, split="test").samples] == [True, False]


def test_training_loses_repeats_of_itself_and_of_the_test(folder: Path) -> None:
    same = {"image_name": "synpic1.jpg", "question": "Same?"}
    items = [record(1, **same), record(2, **same | {"question": "same? "}), record(3), record(4, question="Other?")]
    items.append(record(5, image_name="synpic3.jpg", question="Is number 3 normal?", phrase_type="test_freeform"))
    result = read(folder, *items)
    assert [sample.id for sample in result.samples] == ["rad/1", "rad/4"]
    assert result.excluded == {"repeat of another record": 2, "split test": 1}
    assert [sample.id for sample in read(folder, *items, split="test").samples] == ["rad/5"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (record(9, image_name="gone.jpg"), "missing"),
        (record(9, image_name="../../secret.jpg"), "leaves the dataset's folder"),
        (record(9, image_name="/etc/hostname"), "leaves the dataset's folder"),
        (record(9, image_name="link.jpg"), "link that leaves"),
        (record(9, image_name="a" * 5000), "missing"),
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


def wordings(folder: Path, *items: Any, split: Split = "train") -> ReadResult:
    (folder / PUBLIC_FILE).write_text(json.dumps(items))
    return read_vqa_rad(folder / PUBLIC_FILE, split=split, paraphrases=True)


def test_other_wordings_of_training_questions_come_after_them_and_on_demand_only(folder: Path) -> None:
    items = [record(1, question_rephrase=" Any infarct? ", question_frame="Is there an infarct?"), record(2)]
    assert [sample.id for sample in read(folder, *items).samples] == ["rad/1", "rad/2"]
    samples = wordings(folder, *items).samples
    assert [sample.id for sample in samples] == ["rad/1", "rad/2", "rad/1/rephrase", "rad/1/frame"]
    first, _, rephrased, framed = samples
    assert (rephrased.question, framed.question) == ("Any infarct?", "Is there an infarct?")
    assert {(sample.image, sample.answer, sample.answer_type) for sample in (first, rephrased, framed)} == {
        (first.image, "Yes", "closed")
    }
    assert {sample.split for sample in samples} == {"train"}


@pytest.mark.parametrize("nothing", [None, "", "  ", "NULL", "null "])
def test_an_absent_wording_is_none(folder: Path, nothing: str | None) -> None:
    result = wordings(folder, record(1, question_rephrase=nothing))
    assert [sample.id for sample in result.samples] == ["rad/1"]
    assert not result.bad


def test_a_wording_that_is_a_question_of_its_own_comes_once(folder: Path) -> None:
    same = {"image_name": "synpic1.jpg", "qid_linked_id": "x"}
    items = [
        record(1, question="Infarct?", question_rephrase="Any infarct?", **same),
        record(2, question="Any infarct?", question_rephrase="Infarct?", phrase_type="para", **same),
    ]
    result = wordings(folder, *items)
    assert [sample.id for sample in result.samples] == ["rad/1", "rad/2"]
    assert result.excluded == {"repeat of another record": 2}


@pytest.mark.parametrize("kind", ["test_freeform", "test_para"])
def test_wordings_of_test_questions_never_train(folder: Path, kind: str) -> None:
    """Neither a test record's own, nor a training record's that is linked to one, nor one that reads the same."""
    tested = record(1, question="Infarct?", question_frame="Framed infarct?", phrase_type=kind, qid_linked_id="x")
    items = [
        tested,
        record(2, question_rephrase="Linked?", qid_linked_id="x "),
        record(3, image_name="synpic1.jpg", question_rephrase="INFARCT? ", question_frame="framed infarct?"),
        record(4, question_rephrase="Infarct?", question_frame="Fine?", qid_linked_id="y"),
    ]
    result = wordings(folder, *items)
    assert [sample.id for sample in result.samples] == ["rad/2", "rad/3", "rad/4", "rad/4/rephrase", "rad/4/frame"]
    assert {sample.split for sample in result.samples} == {"train"}
    assert result.excluded == {"wording of a test question": 3, "split test": 1}
    assert [sample.id for sample in wordings(folder, *items, split="test").samples] == ["rad/1"]


def test_records_without_a_link_are_not_linked_to_each_other(folder: Path) -> None:
    items = [record(1, phrase_type="test_para"), record(2, question_frame="Fine?"), record(3, qid_linked_id="NULL")]
    assert [sample.id for sample in wordings(folder, *items).samples] == ["rad/2", "rad/3", "rad/2/frame"]


def test_a_wording_that_is_no_text_is_reported_and_a_broken_record_only_once(folder: Path) -> None:
    items = [record(1, question_frame=5), record(2, image_name="gone.jpg", question_frame="Fine?")]
    result = wordings(folder, *items)
    assert [sample.id for sample in result.samples] == ["rad/1"]
    assert [(bad.place, bad.id) for bad in result.bad] == [(2, "2"), (1, "1/frame")]
    assert "question is not text" in result.bad[1].reason


def test_a_training_question_that_repeats_a_test_question_brings_no_wordings(folder: Path) -> None:
    same = {"image_name": "synpic1.jpg", "question": "Same?"}
    items = [record(1, **same, question_frame="Framed?"), record(2, **same, phrase_type="test_freeform")]
    assert not wordings(folder, *items).samples
