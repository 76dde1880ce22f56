"""Which of a stage's checkpoints can be continued from."""

from pathlib import Path

from medmoe.training.optimization.step_checkpoints import StepCheckpoints


def written(checkpoints: StepCheckpoints, step: int) -> None:
    (checkpoints.staging / f"checkpoint-{step}").mkdir(parents=True)


def test_the_newest_complete_checkpoint_is_the_last_and_older_ones_go(tmp_path: Path) -> None:
    checkpoints = StepCheckpoints(tmp_path)
    assert checkpoints.last() is None
    for step in (200, 1000):
        written(checkpoints, step)
        checkpoints.publish(step)
    assert checkpoints.last() == tmp_path / "checkpoint-1000"
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1000"]


def test_what_was_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = StepCheckpoints(tmp_path)
    written(checkpoints, 200)
    checkpoints.publish(200)
    written(checkpoints, 400)
    assert StepCheckpoints(tmp_path).last() == tmp_path / "checkpoint-200"
    checkpoints.clear_unfinished()
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-200"}


def test_neither_links_nor_files_nor_other_names_are_read_or_removed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "precious").mkdir(parents=True)
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "checkpoint-300").symlink_to(elsewhere)
    (stage / "checkpoint-400").write_text("")
    (stage / "checkpoint-best").mkdir()
    assert StepCheckpoints(stage).last() is None
    StepCheckpoints(stage).clear()
    assert (elsewhere / "precious").is_dir()
    assert (stage / "checkpoint-best").is_dir()


def test_a_finished_stage_keeps_nothing(tmp_path: Path) -> None:
    checkpoints = StepCheckpoints(tmp_path / "stage")
    written(checkpoints, 200)
    checkpoints.publish(200)
    written(checkpoints, 400)
    checkpoints.clear()
    assert not list((tmp_path / "stage").iterdir())
