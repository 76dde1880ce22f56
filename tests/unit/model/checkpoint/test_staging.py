"""A checkpoint takes its place whole, or what was there stays; somebody's own files always stay."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from medmoe.model.checkpoint.staging import staged_directory
from medmoe.model.errors import CheckpointError
from tests.support.checkpoints.tiny import tiny_config


def fill(directory: Path, *, text: str = "new", replace: bool = False) -> None:
    with staged_directory(directory, replace=replace) as staging:
        (staging / "README.md").write_text(text)
        (staging / "config.json").write_text(tiny_config().to_json())


def hidden(parent: Path) -> list[str]:
    return [path.name for path in parent.iterdir() if path.name.startswith(".")]


def test_a_new_directory_appears(tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "out")
    assert (tmp_path / "deep" / "out" / "README.md").read_text() == "new"
    assert not hidden(tmp_path / "deep")


def test_an_empty_directory_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    assert (tmp_path / "out" / "README.md").exists()


def test_a_checkpoint_is_replaced_when_asked(tmp_path: Path) -> None:
    fill(tmp_path / "out", text="old")
    with pytest.raises(CheckpointError, match="not empty"):
        fill(tmp_path / "out")
    fill(tmp_path / "out", replace=True)
    assert (tmp_path / "out" / "README.md").read_text() == "new"
    assert not hidden(tmp_path)


def thesis(directory: Path) -> None:
    (directory / "thesis.tex").touch()


def folder(directory: Path) -> None:
    (directory / "LICENSE").mkdir()


def another_model(directory: Path) -> None:
    (directory / "config.json").write_text('{"model_type": "moe_llava_phi"}')


def no_config(directory: Path) -> None:
    (directory / "config.json").unlink()


@pytest.mark.parametrize("theirs", [thesis, folder, another_model, no_config])
def test_somebodys_files_are_never_replaced(tmp_path: Path, theirs: Callable[[Path], None]) -> None:
    fill(tmp_path / "out", text="old")
    theirs(tmp_path / "out")
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(CheckpointError, match=r"move it away|not replaced"):
        fill(tmp_path / "out", replace=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


def overtaken(out: Path, *, replace: bool) -> None:
    with staged_directory(out, replace=replace) as staging:
        (staging / "config.json").touch()
        out.mkdir()
        (out / "important.txt").touch()


@pytest.mark.parametrize("replace", [False, True])
def test_what_appears_meanwhile_stays(tmp_path: Path, replace: bool) -> None:
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match="out"):
        overtaken(out, replace=replace)
    assert (out / "important.txt").exists()
    assert hidden(tmp_path) == []


def test_an_interrupted_swap_brings_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "out", text="old")
    rename, calls = Path.rename, []

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "out", replace=True)
    assert (tmp_path / "out" / "README.md").read_text() == "old"
    assert hidden(tmp_path) == []


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "real", text="old")
    (tmp_path / "out").symlink_to(tmp_path / "real")
    fill(tmp_path / "out", replace=True)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "README.md").read_text() == "new"


def test_what_cannot_be_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "x")
    with pytest.raises(CheckpointError, match="is a file"):
        fill(tmp_path / "file")
    with pytest.raises(CheckpointError, match="leads nowhere"):
        fill(tmp_path / "dangling")
    with pytest.raises(CheckpointError, match="cannot be"):
        fill(tmp_path / "file" / "out")
    with pytest.raises(CheckpointError, match="mount point"):
        fill(Path(os.sep))


def full_disk(out: Path) -> None:
    with staged_directory(out, replace=False):
        raise OSError(28, "No space left on device")


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written: No space"):
        full_disk(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
