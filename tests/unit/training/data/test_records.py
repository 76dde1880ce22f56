"""Dataset folders: what becomes a sample, and that everything else is accounted for."""

import json
from pathlib import Path
from typing import Any

import pytest

from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.errors import DatasetError
from medmoe.training.data.readers.records import read_records

VQA: dict[str, Any] = {
    "id": "d/0",
    "task": "vqa",
    "image": "images/a.png",
    "modality": "CT",
    "split": "train",
    "question": "Is it normal?",
    "answer": "Yes",
    "answer_type": "closed",
    "question_type": "ABN",
}
CLASS: dict[str, Any] = {
    "id": "d/1",
    "task": "classification",
    "image": "images/a.png",
    "modality": "unknown",
    "split": "test",
    "label": "liver",
    "label_set": ["liver", "lung"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "organs"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(b"pixels")
    (tmp_path / "secret.png").write_bytes(b"outside")
    return folder


def write(folder: Path, *records: Any, file: str = "records.jsonl") -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / file).write_text("\n".join(lines) + "\n")
    return folder


def test_vqa_record_becomes_a_question(folder: Path) -> None:
    (sample,) = read_records(write(folder, VQA), split="train").samples
    assert sample.kind == "vqa"
    assert (sample.id, sample.dataset, sample.question, sample.answer) == ("d/0", "organs", "Is it normal?", "Yes")
    assert (sample.answer_type, sample.question_type, sample.modality) == ("closed", "ABN", "CT")
    assert sample.image == (folder / "images" / "a.png").absolute()


def test_classification_record_offers_its_label_set(folder: Path) -> None:
    (sample,) = read_records(write(folder, CLASS), split="test").samples
    assert sample.kind == "classification"
    assert (sample.question, sample.answer, sample.labels) == (None, "liver", ("liver", "lung"))


def test_unknown_modality_is_none(folder: Path) -> None:
    assert read_records(write(folder, CLASS), split="test").samples[0].modality is None


def test_leak_flags_are_kept(folder: Path) -> None:
    flagged = VQA | {"split": "test", "image_in_train": True, "near_twin_in_train": True}
    (sample,) = read_records(write(folder, flagged), split="test").samples
    assert sample.image_in_train
    assert sample.near_twin_in_train


def test_only_wanted_splits_are_read_and_the_rest_is_counted(folder: Path) -> None:
    result = read_records(write(folder, VQA, CLASS), split="test")
    assert [sample.id for sample in result.samples] == ["d/1"]
    assert result.excluded == {"split train": 1}


def test_repeats_are_left_out_of_training_and_counted(folder: Path) -> None:
    result = read_records(write(folder, VQA, VQA | {"id": "d/2", "repeat": True}), split="train")
    assert [sample.id for sample in result.samples] == ["d/0"]
    assert result.excluded == {"repeat of another record": 1}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("{not json", "malformed JSON"),
        ("[1]", "not a JSON object"),
        ({key: value for key, value in VQA.items() if key != "question"}, "question is missing"),
        (VQA | {"answer": "  "}, "answer is blank"),
        (VQA | {"answer": 3}, "answer is not text"),
        (VQA | {"answer_type": "maybe"}, "answer_type"),
        (VQA | {"split": "dev"}, "split"),
        (VQA | {"task": "segmentation"}, "task"),
        (VQA | {"image": "images/gone.png"}, "image file is missing"),
        (VQA | {"image": "../secret.png"}, "leaves the dataset's folder"),
        (VQA | {"image": "images/../../secret.png"}, "leaves the dataset's folder"),
        (VQA | {"image": "/etc/hostname"}, "leaves the dataset's folder"),
        (CLASS | {"split": "train", "label": "heart"}, "label is not in label_set"),
        (CLASS | {"split": "train", "label_set": "organs"}, "label_set is not a list"),
        (CLASS | {"split": "train", "label_set": ["liver"]}, "at least two"),
    ],
)
def test_bad_line_is_reported_with_its_number_and_the_rest_is_kept(folder: Path, record: Any, reason: str) -> None:
    result = read_records(write(folder, VQA, record, VQA | {"id": "d/9"}), split="train")
    assert [sample.id for sample in result.samples] == ["d/0", "d/9"]
    (bad,) = result.bad
    assert (bad.file, bad.place) == ("records.jsonl", 2)
    assert reason in bad.reason


def test_bytes_that_are_not_text_are_one_bad_line(folder: Path) -> None:
    (folder / "records.jsonl").write_bytes(b'{"id": "\xff"}\n' + json.dumps(VQA).encode())
    result = read_records(folder, split="train")
    assert len(result.samples) == 1
    assert result.bad[0].place == 1


def test_the_second_record_of_an_id_is_left_out_or_gets_an_id_of_its_own(folder: Path) -> None:
    result = read_records(write(folder, VQA, VQA, VQA | {"answer": "No"}), split="train")
    assert [(sample.id, sample.answer) for sample in result.samples] == [("d/0", "Yes"), ("d/0-2", "No")]
    assert (result.excluded, result.renamed) == ({"repeat of another record": 1}, 1)


def test_reasons_never_quote_what_a_record_says(folder: Path) -> None:
    result = read_records(write(folder, VQA | {"answer_type": "CANARY", "question": "CANARY"}), split="train")
    assert "CANARY" not in result.summary()


def test_missing_file_is_an_error(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"records\.jsonl"):
        read_records(folder, split="train")


def test_another_file_of_the_folder_can_be_read(folder: Path) -> None:
    write(folder, VQA, file="vqa_records.jsonl")
    assert len(read_records(folder, split="train", file="vqa_records.jsonl").samples) == 1


def test_captions_have_neither_question_nor_labels(folder: Path) -> None:
    record = {"image": "images/a.png", "split": "train", "modality": "CT", "caption": "A CT of the liver."}
    write(folder, record, file="captions.jsonl")
    (sample,) = read_dataset(folder, split="train", captions=True).samples
    assert sample.kind == "caption"
    assert (sample.answer, sample.question, sample.labels) == ("A CT of the liver.", None, ())


def test_results_add_up(folder: Path) -> None:
    one = read_records(write(folder, VQA, "{"), split="train")
    two = read_records(write(folder, CLASS), split="train")
    both = one + two
    assert (len(both.samples), len(both.bad), dict(both.excluded)) == (1, 1, {"split test": 1})


@pytest.mark.parametrize("field", ["group", "patient", "Patient ID", "subject_id"])
def test_a_record_names_the_patient_of_its_image(folder: Path, field: str) -> None:
    first, second = {**VQA, field: 7}, {**VQA, "id": "d/3", "question": "What?"}
    (folder / "images" / "b.png").write_bytes(b"pixels")
    other = {**VQA, "id": "d/4", "image": "images/b.png", field: " "}
    found = read_records(write(folder, first, second, other), split="train")
    assert [sample.group for sample in found.samples] == ["7", "7", None]
    assert found.bad == ()


def test_an_image_of_two_patients_is_named(folder: Path) -> None:
    found = read_records(
        write(folder, {**VQA, "group": "a"}, {**VQA, "id": "d/3", "question": "What?", "group": "b"}), split="train"
    )
    assert [item.reason for item in found.bad] == ["group is another one than in an earlier row about the image"]
