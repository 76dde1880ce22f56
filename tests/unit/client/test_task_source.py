"""What a batch takes from a folder, and what it leaves out by name."""

from pathlib import Path

import pytest

from medmoe.client.batch.task_source import read_tasks
from medmoe.client.errors import InvalidInput
from medmoe.client.images.folder import find_images
from medmoe.client.images.series import dicom_files


def test_a_broken_image_stays_and_other_files_are_named(tmp_path: Path) -> None:
    for name, data in {
        "cut.JPG": b"",
        "page.png": b"<html>",
        "scan": b"\0" * 128 + b"DICM",
        "without_preamble": b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100".ljust(200, b"\0"),
        "below/dicomdir": b"\0" * 128 + b"DICM",
        "notes.txt": b"notes",
        "below/list.csv": b"a,b",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = read_tasks(tmp_path, question="What is shown?", labels=None, options={})
    assert [task.image for task in found.tasks] == ["cut.JPG", "page.png", "scan", "without_preamble"]
    assert found.notes == ("left out, because not images: below/dicomdir, below/list.csv, notes.txt",)


def test_linked_folders_are_read_and_a_link_back_up_is_not_followed(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "images"
    elsewhere.mkdir()
    (elsewhere / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "study").mkdir(parents=True)
    (folder / "study" / "linked").symlink_to(elsewhere)
    (folder / "study" / "up").symlink_to(folder)
    (folder / "study" / "gone.dcm").symlink_to(tmp_path / "nothing")
    expected = [folder / "study" / "linked" / "1.dcm"]
    assert list(find_images(folder).images) == expected
    assert dicom_files(folder) == expected


def test_a_folder_that_cannot_be_read_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="gone cannot be read"):
        find_images(tmp_path / "gone")


def test_a_damaged_slice_is_not_left_out_of_a_series(tmp_path: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "2.DCM").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"notes")
    assert dicom_files(tmp_path) == [tmp_path / "1.dcm", tmp_path / "2.DCM"]


@pytest.mark.parametrize("name", ["._1.dcm", ".trash/1.dcm", "@eaDir/1.dcm/thumbnail.dcm", "$RECYCLE.BIN/1.dcm"])
def test_files_of_operating_systems_and_storage_are_no_images_of_a_folder(tmp_path: Path, name: str) -> None:
    for file in ("1.dcm", name):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"\0" * 128 + b"DICM")
    assert list(find_images(tmp_path).images) == [tmp_path / "1.dcm"]
    assert dicom_files(tmp_path) == [tmp_path / "1.dcm"]
