"""Formats told apart by what lies in a folder, and errors where that does not say enough."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmoe.training.config import Split
from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.detection import Form, detect
from medmoe.training.data.errors import DatasetError

RAD = {"qid": 1, "image_name": "a.jpg", "question": "Q?", "answer": "A", "answer_type": "OPEN", "phrase_type": "para"}
SLAKE = {
    "qid": 1,
    "img_name": "a.jpg",
    "question": "Q?",
    "answer": "A",
    "q_lang": "en",
    "modality": "CT",
    "answer_type": "OPEN",
}
PATH = {"image": "a", "question": "Q?", "answer": "A"}
TALK = {"id": 1, "image": "a.jpg", "conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "A"}]}
OURS = {
    "id": "d/1",
    "task": "vqa",
    "image": "images/a.jpg",
    "split": "train",
    "question": "Q?",
    "answer": "A",
    "answer_type": "open",
}


def write(folder: Path, name: str, *items: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, items)) if name.endswith("l") else json.dumps(items))
    return path


def npz(folder: Path, name: str) -> Path:
    content = {f"{split}_images": np.zeros((2, 4, 4), np.uint8) for split in ("train", "val", "test")}
    content |= {f"{split}_labels": np.array([[0], [1]]) for split in ("train", "val", "test")}
    np.savez(folder / name, **content)
    return folder / name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for images in ("images", "radiology/images", "train/radiology/images"):
        (tmp_path / "set" / images).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "set" / images / "a.jpg")
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("name", "item", "form"),
    [
        ("VQA_RAD Dataset Public.json", RAD, Form.VQA_RAD),
        ("train.json", SLAKE, Form.SLAKE),
        ("train.json", PATH, Form.QUESTIONS),
        ("train.jsonl", PATH, Form.QUESTIONS),
        ("qas/train/train_qa.json", PATH, Form.QUESTIONS),
        ("train.json", TALK, Form.LLAVA),
        ("train.json", TALK | {"conversatons": []}, Form.LLAVA),
        ("records.jsonl", OURS, Form.RECORDS),
    ],
)
def test_folder_is_known_by_its_files_and_read(folder: Path, name: str, item: Any, form: Form) -> None:
    write(folder, name, item)
    assert detect(folder).form is form
    if "conversatons" not in item:
        (sample,) = read_dataset(folder, split="train").samples
        assert (sample.dataset, sample.question, sample.answer) == ("set", "Q?", "A")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.txt", "a\tA CT."),
        ("train/radiology/captions.txt", "a\tA CT."),
        ("train/radiology/traindata.csv", "id,name,caption\na,a.jpg,A CT."),
        ("train_captions.csv", "ID,Caption\na,A CT."),
    ],
)
def test_roco_folder_is_known_by_its_files_and_read(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (sample,) = read_dataset(folder, split="train", captions=True).samples
    assert (sample.id, sample.kind, sample.answer) == ("set/a", "caption", "A CT.")
    assert read_dataset(folder, split="test", captions=True).samples == ()


@pytest.mark.parametrize("spelling", ["val", "valid", "validate", "validation"])
def test_validation_has_four_spellings(folder: Path, spelling: str) -> None:
    write(folder, "train.json", SLAKE)
    write(folder, f"{spelling}.json", SLAKE | {"qid": 2})
    assert [sample.id for sample in read_dataset(folder, split="val").samples] == ["set/2"]
    assert read_dataset(folder, split="test").samples == ()


def test_medmnist_is_read_from_its_folder_and_by_its_file(folder: Path, tmp_path: Path) -> None:
    file = npz(folder, "pneumoniamnist.npz")
    by_file = read_dataset(file, split="val", image_directory=tmp_path / "png")
    assert read_dataset(folder, split="val", image_directory=tmp_path / "png") == by_file
    assert len(by_file.samples) == 2


def test_medmnist_images_lie_beside_the_file_unless_told_otherwise(folder: Path) -> None:
    (first, *_) = read_dataset(npz(folder, "pneumoniamnist.npz"), split="train").samples
    assert first.image.is_relative_to(folder / "pneumoniamnist.images")
    # Its own product must not make the folder ambiguous.
    assert len(read_dataset(folder, split="train").samples) == 2


def test_our_records_come_first_whatever_lies_beside_them(folder: Path) -> None:
    write(folder, "records.jsonl", OURS)
    write(folder, "train.json", SLAKE)
    npz(folder, "pneumoniamnist.npz")
    assert [sample.id for sample in read_dataset(folder, split="train").samples] == ["d/1"]


def test_another_file_of_records_can_be_named(folder: Path) -> None:
    write(folder, "records.jsonl", OURS)
    write(folder, "vqa_records.jsonl", OURS | {"id": "d/2"})
    assert [sample.id for sample in read_dataset(folder / "vqa_records.jsonl", split="train").samples] == ["d/2"]
    assert read_dataset(folder / "vqa_records.jsonl", split="test").samples == ()


@pytest.mark.parametrize("item", [SLAKE, PATH, TALK])
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_named_file_is_the_split_that_is_asked_for(folder: Path, item: Any, split: Split) -> None:
    file = write(folder, "images/mine.json", item) if item is TALK else write(folder, "mine.json", item)
    (sample,) = read_dataset(file, split=split).samples
    assert sample.split == split
    assert not detect(file).knows_splits


@pytest.mark.parametrize(
    "names",
    [
        ("VQA_RAD Dataset Public.json", "train.json"),
        ("train.json", "captions.txt"),
        ("pneumoniamnist.npz", "organcmnist.npz"),
        ("pneumoniamnist.npz", "pneumoniamnist_64.npz"),
        ("train.json", "train.jsonl"),
        ("val.json", "validation.json"),
    ],
)
def test_ambiguous_folder_is_an_error_that_names_the_files(folder: Path, names: tuple[str, str]) -> None:
    for name in names:
        write(folder, name, SLAKE)
    with pytest.raises(DatasetError, match="name the file itself") as error:
        read_dataset(folder, split="train")
    assert all(name in str(error.value) for name in names)


def test_splits_in_two_formats_are_ambiguous(folder: Path) -> None:
    write(folder, "train.json", SLAKE)
    write(folder, "test.json", PATH)
    with pytest.raises(DatasetError, match="more than one dataset"):
        read_dataset(folder, split="train")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("qas/train/train_qa.pkl", "is a pickle, and reading one runs"), ("data/train-0.parquet", "is parquet")],
)
def test_pickle_and_parquet_are_refused_unread_with_what_to_do(folder: Path, name: str, reason: str) -> None:
    path = write(folder, name, PATH)
    for dataset in (folder, path):
        with pytest.raises(DatasetError, match=reason) as error:
            read_dataset(dataset, split="train")
        assert "train.json" in str(error.value)


def test_pickles_beside_their_export_do_not_matter(folder: Path) -> None:
    write(folder, "qas/train/train_qa.pkl", PATH)
    write(folder, "qas/train/train_qa.json", PATH)
    assert len(read_dataset(folder, split="train").samples) == 1


def test_folder_without_anything_known_is_an_error(folder: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset in a known form"):
        read_dataset(folder, split="train")


@pytest.mark.parametrize("text", ["[]", '[{"a": 1}]', '{"a": 1}', "", "nonsense", "[" * 200_000])
def test_split_file_in_no_known_form_is_an_error(folder: Path, text: str) -> None:
    (folder / "train.json").write_text(text)
    with pytest.raises(DatasetError, match=r"train\.json"):
        read_dataset(folder, split="train")


def test_first_item_longer_than_the_head_of_the_file_is_still_understood(folder: Path) -> None:
    write(folder, "train.json", SLAKE | {"question": "Q" * 100_000})
    assert detect(folder).form is Form.SLAKE


def test_a_folder_for_each_label_is_of_the_split_that_is_asked_for(tmp_path: Path) -> None:
    for label in ("mass", "nicht auffällig"):
        (tmp_path / "own" / label / "left").mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "own" / label / "left" / "a.png")
    found = read_dataset(tmp_path / "own", split="test")
    assert not detect(tmp_path / "own").knows_splits
    assert {(sample.answer, sample.split) for sample in found.samples} == {
        ("mass", "test"),
        ("nicht auffällig", "test"),
    }
    assert all(sample.labels == ("mass", "nicht auffällig") for sample in found.samples)


def test_folders_of_splits_hold_the_folders_of_labels(tmp_path: Path) -> None:
    for split, labels in (("Train", ("mass", "normal")), ("test", ("normal",))):
        for label in labels:
            (tmp_path / "own" / split / label).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / "own" / split / label / "a.png")
    (sample,) = read_dataset(tmp_path / "own", split="test").samples
    assert (sample.answer, sample.labels) == ("normal", ("mass", "normal"))
    assert read_dataset(tmp_path / "own", split="val").samples == ()


def test_a_table_is_found_in_its_folder_and_may_state_splits(folder: Path) -> None:
    (folder / "own.csv").write_text("image;label;split\na.jpg;mass;test\na.jpg;normal;train\n")
    assert detect(folder).form is Form.TABLE
    (sample,) = read_dataset(folder, split="test").samples
    assert (sample.answer, sample.labels, sample.image.name) == ("mass", ("mass", "normal"), "a.jpg")
    (folder / "own.csv").write_text("image,question,answer\na.jpg,What is it?,a mass\n")
    (sample,) = read_dataset(folder / "own.csv", split="val").samples
    assert (sample.question, sample.split) == ("What is it?", "val")
    (folder / "more.csv").write_text("image,label\n")
    with pytest.raises(DatasetError, match="more than one table"):
        detect(folder)
