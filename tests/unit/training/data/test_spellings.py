"""Spellings in which copies of the published datasets differ: numbers, closed answers, image names."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from medmoe.training.config import Split
from medmoe.training.data.__main__ import app
from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.detection import Detected, Form
from medmoe.training.data.errors import SampleError
from medmoe.training.data.protocols import against_protocol
from medmoe.training.data.readers.image_path import find_image, image_path
from medmoe.training.data.readers.question_list import read_question_list


def saved(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path, format="PNG")
    return path


@pytest.mark.parametrize("name", ["images/a.jpg", "./images/a.JPG", "images\\a.jpeg", ".\\images\\a.JPEG"])
def test_slashes_and_the_ending_of_a_jpeg_may_be_spelt_otherwise(tmp_path: Path, name: str) -> None:
    image = saved(tmp_path / "images" / "a.jpg")
    assert find_image(name, directories=(tmp_path,)) == image


@pytest.mark.parametrize("name", ["..\\a.jpg", "C:\\a.jpg", "\\a.jpg", "images\\..\\..\\a.jpg"])
def test_no_slash_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    saved(tmp_path / "a.jpg")
    (tmp_path / "data").mkdir()
    with pytest.raises(SampleError, match="leaves"):
        find_image(name, directories=(tmp_path / "data",))


def test_two_files_for_another_spelling_are_ambiguous(tmp_path: Path) -> None:
    saved(tmp_path / "a.jpg")
    saved(tmp_path / "a.JPG")
    with pytest.raises(SampleError, match="several"):
        find_image("a.jpeg", directories=(tmp_path,))


def test_whole_floats_are_integers_and_punctuated_answers_are_closed(tmp_path: Path) -> None:
    saved(tmp_path / "a.jpg")
    answers = (2.0, "Yes.", " no ", "NO!", "yes and no")
    items = [
        {"id": float(place), "image": "a.jpg", "question": "?", "answer": value} for place, value in enumerate(answers)
    ]
    (tmp_path / "train.json").write_text(json.dumps(items))
    result = read_question_list(tmp_path / "train.json", split="train", directory=tmp_path)
    assert [sample.id.rsplit("/", 1)[1] for sample in result.samples] == ["0", "1", "2", "3", "4"]
    assert result.samples[0].answer == "2"
    assert [sample.answer_type for sample in result.samples] == ["open", "closed", "closed", "closed", "open"]


@pytest.mark.parametrize(
    ("named", "stored"), [("a.png", "a.PNG"), ("a.TIFF", "a.tif"), ("a.JPEG", "a.jpg"), ("sub\\a.jpg", "sub/a.JPG")]
)
def test_records_and_conversations_find_images_of_another_ending(tmp_path: Path, named: str, stored: str) -> None:
    image = saved(tmp_path / stored)
    assert image_path(named, directory=tmp_path) == image
    assert find_image(named, directories=(tmp_path,)) == image


def question(folder: str, qid: object, **fields: object) -> dict[str, object]:
    """Return a record as `folder` of the literature has it."""
    known = {"qid": qid, "question": f"Question {qid}?", "answer": "Yes.", "answer_type": "CLOSED"}
    if folder == "data_SLAKE":
        return (
            known
            | {"img_name": "xmlab1/source.jpg", "q_lang": "en", "modality": "CT", "content_type": "Organ"}
            | fields
        )
    return known | {"image_name": "synpic1.jpg", "image_organ": "CHEST", "phrase_type": "freeform"} | fields


@pytest.mark.parametrize("images", ["images", "imgs"])
@pytest.mark.parametrize("folder", ["data_RAD", "VQA_RAD", "data_SLAKE"])
def test_a_folder_of_the_literature_with_a_file_for_each_split(tmp_path: Path, folder: str, images: str) -> None:
    data = tmp_path / folder
    saved(data / images / ("xmlab1/source.jpg" if folder == "data_SLAKE" else "synpic1.jpg"))
    (data / "trainset.json").write_text(json.dumps([question(folder, 1.0), question(folder, 2)]))
    (data / "testset.json").write_text(json.dumps([question(folder, 3)]))
    found = {split: read_dataset(data, split=split).samples for split in ("train", "val", "test")}
    assert [sample.id for sample in found["train"]] == [f"{folder}/1", f"{folder}/2"]
    assert [sample.id for sample in found["test"]] == [f"{folder}/3"]
    assert not found["val"]
    assert all(sample.answer_type == "closed" for samples in found.values() for sample in samples)
    if folder != "data_SLAKE":
        assert found["test"][0].image_in_train


def test_training_questions_that_the_other_file_tests_are_left_out(tmp_path: Path) -> None:
    saved(tmp_path / "images" / "synpic1.jpg")
    (tmp_path / "trainset.json").write_text(json.dumps([question("data_RAD", 1), question("data_RAD", 2)]))
    repeat = question("data_RAD", 9, question="Question 1?")
    (tmp_path / "testset.json").write_text(json.dumps([repeat]))
    train = read_dataset(tmp_path, split="train")
    assert [sample.question for sample in train.samples] == ["Question 2?"]
    assert train.excluded == {"repeat of another record": 1}


@pytest.mark.parametrize(
    "file", ["VQA_RAD Dataset Public.json", "VQA_RAD_Dataset_Public.json", "vqa_rad dataset public.json"]
)
@pytest.mark.parametrize("images", ["VQA_RAD Image Folder", "VQA_RAD_Image_Folder", "vqa_rad image folder"])
def test_the_release_of_vqa_rad_in_other_spellings(tmp_path: Path, file: str, images: str) -> None:
    saved(tmp_path / images / "synpic1.jpg")
    (tmp_path / file).write_text(
        json.dumps([question("data_RAD", 1), question("data_RAD", 2, phrase_type="test_para")])
    )
    assert [len(read_dataset(tmp_path, split=split).samples) for split in ("train", "test")] == [1, 1]


def test_the_second_record_of_an_id_gets_an_id_of_its_own_and_its_repeat_is_left_out(tmp_path: Path) -> None:
    saved(tmp_path / "imgs" / "xmlab1" / "source.jpg")
    first, other = question("data_SLAKE", 7), question("data_SLAKE", 7.0, question="Another?")
    (tmp_path / "train.json").write_text(json.dumps([first, other, first, question("data_SLAKE", "7", answer="No")]))
    result = read_dataset(tmp_path, split="train")
    name = tmp_path.name
    assert [sample.id for sample in result.samples] == [f"{name}/7", f"{name}/7-2", f"{name}/7-3"]
    assert (result.renamed, result.excluded, result.bad) == (2, {"repeat of another record": 1}, ())
    assert "renamed: 2" in result.summary()


def test_conversations_with_one_id_for_an_image_keep_all_their_questions(tmp_path: Path) -> None:
    saved(tmp_path / "a.jpg")
    items = [
        {
            "id": 1.0,
            "image": ".\\a.JPG",
            "conversations": [{"from": "human", "value": f"Question {number}?"}, {"from": "gpt", "value": "Yes."}],
        }
        for number in range(3)
    ]
    (tmp_path / "train.json").write_text(json.dumps(items))
    assert [s.id for s in read_dataset(tmp_path, split="train").samples] == ["1/0", "1/0-2", "1/0-3"]


@pytest.mark.parametrize(
    ("folder", "split", "samples", "line"),
    [
        ("data_SLAKE", "train", 4919, "4,919 questions, as published"),
        ("VQA_RAD", "train", 3064, "3,064 questions, as published"),
        ("VQA_RAD", "test", 450, "450 questions, 1 fewer than published (451)"),
        ("PathVQA", "val", 6279, "6,279 questions, as published"),
        ("PathVQA", "train", 20000, "20,000 questions, 245 more than published (19,755 or 19,654)"),
        ("Slake1.0", "test", 1061, "1,061 questions, as published"),
        ("data_RAD", "test", 451, "451 questions, as published"),
        ("our own", "train", 10, None),
        ("slake_ct_organs", "train", 421, None),
        ("vqa-rad-closed", "test", 251, None),
        ("path_vqa_modality", "train", 100, None),
    ],
)
def test_counts_are_compared_with_the_published_protocol(
    tmp_path: Path, folder: str, split: Split, samples: int, line: str | None
) -> None:
    for form in (Form.QUESTIONS, Form.RECORDS):
        found = Detected(form, {}, tmp_path / folder)
        assert against_protocol(found, split, samples=samples) == line


def test_the_manifest_prints_the_published_counts(tmp_path: Path) -> None:
    saved(tmp_path / "data_SLAKE" / "imgs" / "xmlab1" / "source.jpg")
    (tmp_path / "data_SLAKE" / "trainset.json").write_text(json.dumps([question("data_SLAKE", 1)]))
    result = CliRunner().invoke(app, ["--data", str(tmp_path), "--dataset", "data_SLAKE"])
    assert "data_SLAKE (train): 1 questions, 4,918 fewer than published (4,919)" in result.output
