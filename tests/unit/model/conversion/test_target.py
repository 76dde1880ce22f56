"""Where a conversion may write is decided before a weight is read, and nothing of anybody's is lost."""

import os
from pathlib import Path

import pytest

from medmoe.model.conversion import converter
from medmoe.model.conversion.converter import convert
from medmoe.model.conversion.options import Options
from medmoe.model.errors import CheckpointError
from tests.support.checkpoints.upstream import TOWER_OPTIONS, Variant, edit_config, write_upstream

WEIGHTS = "model.safetensors"
OPTIONS = Options(**TOWER_OPTIONS)
OVERWRITE = Options(**TOWER_OPTIONS, overwrite=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("home") / "source"
    write_upstream(directory, Variant())
    return directory


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("home") / "dense"
    write_upstream(directory, Variant(family="dense"))
    return directory


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion that gets as far as opening the weights has gone too far."""

    def fail(files: object) -> None:
        raise AssertionError("the weights were opened")

    monkeypatch.setattr(converter, "TensorSource", fail)


def test_an_existing_target_is_kept_unless_asked(source: Path, dense: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    convert(source, target, OPTIONS)
    before = (target / WEIGHTS).read_bytes()
    with pytest.raises(CheckpointError, match="--overwrite"):
        convert(dense, target, OPTIONS)
    assert (target / WEIGHTS).read_bytes() == before
    convert(dense, target, OVERWRITE)
    assert (target / WEIGHTS).read_bytes() != before


def test_overwriting_never_removes_the_source_or_what_is_no_checkpoint(source: Path, tmp_path: Path) -> None:
    for target in (source, source.parent):
        with pytest.raises(CheckpointError, match="choose another target"):
            convert(source, target, OVERWRITE)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").touch()
    with pytest.raises(CheckpointError, match=r"thesis\.txt.* no part of a checkpoint"):
        convert(source, tmp_path / "precious", OVERWRITE)
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_a_link_as_target_is_followed_once_and_stays_a_link(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "first", OPTIONS)
    (tmp_path / "latest").symlink_to("first")
    (tmp_path / "first" / "README.md").unlink()
    convert(source, tmp_path / "latest", OVERWRITE)
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "first" / "README.md").exists()


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_target_that_cannot_be_written_is_known_before_the_weights(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "mount").mkdir()
    really = os.path.ismount
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "mount" or really(path))
    for name in ("file", "file/below", "dangling", "circle", "mount", "x" * 256, "x" * 5000, "/proc/target"):
        with pytest.raises(CheckpointError) as found:
            convert(source, tmp_path / name, OVERWRITE if overwrite else OPTIONS)
        assert len(str(found.value).splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "dangling", "file", "mount"]


def test_a_long_name_is_a_name(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / ("x" * 255), OPTIONS)
    assert (tmp_path / ("x" * 255) / WEIGHTS).exists()


def test_a_refused_conversion_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", Variant())
    edit_config(tmp_path / "source", num_hidden_layers=5)
    with pytest.raises(Exception, match="says 5 layers"):
        convert(tmp_path / "source", tmp_path / "target", OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
