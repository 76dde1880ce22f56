"""What a batch takes from a folder, and what it leaves out by name."""

from pathlib import Path

from medmoe.client.batch.task_source import read_tasks


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
