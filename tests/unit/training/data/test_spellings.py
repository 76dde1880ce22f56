"""Spellings in which copies of the published datasets differ: numbers, closed answers, image names."""

import json
from pathlib import Path

import pytest
from PIL import Image

from medmoe.training.data.errors import SampleError
from medmoe.training.data.readers.image_path import find_image
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
