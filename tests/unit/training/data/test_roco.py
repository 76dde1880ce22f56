"""ROCO's captions in their three published shapes."""

from pathlib import Path

import pytest
from PIL import Image

from medmoe.training.data.errors import DatasetError
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.roco import read_roco


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("ROCO_00001.jpg", "PMC11_fig1.jpg"):
        Image.new("L", (4, 4)).save(images / name)
    return tmp_path


def read(folder: Path, name: str, text: str) -> ReadResult:
    (folder / name).write_text(text, encoding="utf-8")
    return read_roco(folder / name, split="train", dataset="roco")


def test_captions_and_images_are_joined_by_id(folder: Path) -> None:
    (sample,) = read(folder, "captions.txt", "ROCO_00001\t Axial CT.\n").samples
    assert (sample.id, sample.kind, sample.answer) == ("roco/ROCO_00001", "caption", "Axial CT.")
    assert sample.image == folder / "images" / "ROCO_00001.jpg"


def test_dlinks_tell_under_which_name_an_image_was_saved(folder: Path) -> None:
    (folder / "dlinks.txt").write_text("ROCO_00002\twget -r ftp://host/pub/PMC11.tar.gz\tfig1.jpg\n")
    (sample,) = read(folder, "captions.txt", "ROCO_00002\tAn MRI.\n").samples
    assert sample.image.name == "PMC11_fig1.jpg"


def test_csv_names_its_images_and_may_break_lines_in_quotes(folder: Path) -> None:
    text = 'id,name,caption\nROCO_00002,PMC11_fig1.jpg,"Left, then\nright."\nROCO_00001,ROCO_00001.jpg, CT.\n'
    first, second = read(folder, "traindata.csv", text).samples
    assert (first.image.name, first.answer) == ("PMC11_fig1.jpg", "Left, then\nright.")
    assert second.answer == "CT."


def test_second_version_has_capital_columns_and_a_folder_for_the_split(folder: Path) -> None:
    (folder / "images").rename(folder / "train")
    (sample,) = read(folder, "train_captions.csv", "ID,Caption\nROCO_00001,CT.\n").samples
    assert sample.image == folder / "train" / "ROCO_00001.jpg"


def test_broken_lines_are_reported_with_their_numbers(folder: Path) -> None:
    lines = [
        "ROCO_00001\tCT.",
        "ROCO_00001\tAgain.",
        "no tab",
        "",
        "ROCO_00009\tNo image.",
        "../secret\tOut.",
        "ROCO_00001\t ",
    ]
    result = read(folder, "captions.txt", "\n".join(lines))
    assert [(sample.id.rsplit("/")[-1], sample.answer) for sample in result.samples] == [
        ("ROCO_00001", "CT."),
        ("ROCO_00001-2", "Again."),
    ]
    assert [bad.place for bad in result.bad] == [3, 5, 6, 7]
    reasons = " ".join(bad.reason for bad in result.bad)
    for reason in ("no tab", "missing", "leaves", "caption is blank"):
        assert reason in reasons


def test_csv_row_of_another_width_is_reported(folder: Path) -> None:
    result = read(folder, "x.csv", "id,name,caption\nROCO_00001,CT.\nROCO_00001,ROCO_00001.jpg,CT.,more\n")
    assert [bad.place for bad in result.bad] == [2, 3]


@pytest.mark.parametrize("text", ["ROCO_ID,PMC_ID,CC\n", "", 'id,caption\n1,"open'])
def test_csv_without_captions_or_cut_off_is_an_error(folder: Path, text: str) -> None:
    with pytest.raises(DatasetError, match=r"x\.csv"):
        read(folder, "x.csv", text)
