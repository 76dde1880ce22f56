"""Small files are read whole or refused; nothing waits, nothing fills the memory."""

import os
from pathlib import Path

import pytest

from medmoe.model.errors import CheckpointError
from medmoe.model.files.bounded_read import read_bounded, read_published


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"x" * 100)
    assert read_bounded(path, limit=100) == b"x" * 100


def test_one_byte_too_many_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"x" * 101)
    with pytest.raises(CheckpointError, match="larger than 100 bytes"):
        read_bounded(path, limit=100)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_bounded(path)


def test_a_device_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_bounded(Path("/dev/zero"))


def test_a_missing_file_stays_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none")


def test_a_published_file_may_be_a_link_within_the_checkpoint_or_into_a_cache_and_nowhere_else(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model" / "snapshots" / "revision"
    blobs = tmp_path / "model" / "blobs"
    for folder in (checkpoint, blobs):
        folder.mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (blobs / "0a1b").write_text("cached")
    (checkpoint / "CARD.md").write_text("card")
    for name, target in (
        ("inside", "CARD.md"),
        ("cache", "../../blobs/0a1b"),
        ("outside", "../../../secret"),
        ("absolute", str(tmp_path / "secret")),
    ):
        (checkpoint / name).symlink_to(target)
    assert read_published(checkpoint, "inside") == b"card"
    assert read_published(checkpoint, "cache") == b"cached"
    for name in ("outside", "absolute"):
        with pytest.raises(CheckpointError, match="leads out of the checkpoint"):
            read_published(checkpoint, name)
