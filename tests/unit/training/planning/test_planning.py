"""A run is planned before it begins: its recipe, what is missing, how large and how long it will be."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from medmoe.model.errors import ConfigError
from medmoe.training.__main__ import app
from medmoe.training.config import RunConfig
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.planning import survey as survey_module
from medmoe.training.planning.duration import estimated_seconds
from medmoe.training.planning.narrowing import narrowed
from medmoe.training.planning.recipe_file import read_recipe_file
from medmoe.training.planning.survey import check_room, survey
from medmoe.training.recipes.catalogue import RECIPES
from medmoe.training.run_directory import claim_directory, sole_run
from tests.support.images.colours import colours_recipe, write_colours


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("data"), train=24, val=8, test=8)


def recipe() -> RunConfig:
    return colours_recipe(epochs=(3, 10, 4), batch_size=8, per_domain=16, router_epochs=30)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ["tiny", "phi-2-upstream", "small-moe", "tiny-med-moe-lora"])
def test_a_recipe_is_read_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    config = RECIPES[name].build()
    (tmp_path / "recipe.json").write_text(config.to_json())
    assert read_recipe_file(tmp_path / "recipe.json") == config
    (tmp_path / "based.json").write_text(json.dumps({"base": {}, "recipe": json.loads(config.to_json())}))
    assert read_recipe_file(tmp_path / "based.json") == config


def test_a_wrong_recipe_file_is_named_with_its_field(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe_file(path)
    whole = json.loads(recipe().to_json())
    for changes, message in (
        ({"sed": 1}, "no recipe has the field sed"),
        ({"seed": "x"}, "seed: .*integer"),
        ({"seed": -1}, "seed -1: choose 0 to"),
        ({"name": "../mine"}, "make a checkpoint's name"),
        ({"alignment": {**whole["alignment"], "epoch": 1}}, "alignment.epoch"),
        ({"router": None}, "router is trained exactly where"),
        ({"router": {**whole["router"], "batch_size": 0}}, "router: per_domain, epochs and batch_size count from 1"),
    ):
        path.write_text(json.dumps(whole | changes))
        with pytest.raises(ConfigError, match=message):
            read_recipe_file(path)


def test_a_recipe_is_narrowed_to_datasets_epochs_and_samples(data: Path) -> None:
    config = narrowed(recipe(), root=data, datasets=["colours"], epochs=2, limit=5)
    assert {config.alignment.epochs, config.moe_tuning.epochs} == {2}  # type: ignore[union-attr]
    entries = (*config.alignment.data, *config.moe_tuning.data)  # type: ignore[union-attr]
    assert all(entry.limit is not None and entry.limit <= 5 for entry in entries)
    with pytest.raises(ConfigError, match="no data are left for alignment: add --dataset slake"):
        narrowed(RECIPES["tiny"].build(), root=data, datasets=["colours"])
    added = narrowed(RECIPES["tiny-lora-r16"].build(), root=data, datasets=["colours"])
    assert {entry.dataset for entry in added.stage.data} == {"colours"}  # type: ignore[union-attr]


def test_everything_that_is_missing_is_named_at_once(data: Path, tmp_path: Path) -> None:
    config = RECIPES["tiny"].build()
    with pytest.raises(ConfigError) as caught:
        survey(config, data=data, directory=tmp_path, base=None, files=(tmp_path / "tower.whl",))
    for name in ("tower.whl", "slake", "vqa_rad", "path_vqa"):
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_domain_that_no_image_shows_is_missing(data: Path, tmp_path: Path) -> None:
    with (data / "colours" / "records.jsonl").open() as file:
        kept = [line for line in file if '"MRI"' not in line]
    shutil.copytree(data / "colours", tmp_path / "data" / "colours")
    (tmp_path / "data" / "colours" / "records.jsonl").write_text("".join(kept))
    with pytest.raises(ConfigError, match="1 inputs are missing: the router has no training image of MRI"):
        survey(recipe(), data=tmp_path / "data", directory=tmp_path / "run", base=None)


def test_a_plan_says_what_is_read_and_how_long_it_takes(data: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(recipe().to_json())
    arguments = (tmp_path / "recipe.json", "--data", data, "--output", tmp_path / "run", "--tower", data, "--plan")
    result = run(*arguments, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "moe_tuning: 1 epochs of " in result.output
    assert "vision tower: " in result.output
    assert "hours on this machine at most" in result.output
    assert not (tmp_path / "run" / "recipe.json").exists()


def test_a_full_disk_and_an_output_that_cannot_be_made_are_found_before_the_work(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = survey(recipe(), data=data, directory=tmp_path, base=None)
    seconds = estimated_seconds(found)
    assert seconds is not None
    assert 0 < seconds < 3600
    monkeypatch.setattr(survey_module, "_STAGE_COPIES", 10**9)
    with pytest.raises(ConfigError, match="make room"):
        check_room(found, output=tmp_path, features=tmp_path / "features", runtime=RuntimeConfig())
    (tmp_path / "file").write_text("x")
    blocked = run(
        "tiny", "--data", data, "--output", tmp_path / "file" / "run", "--tower", data, "--language-model", data
    )
    assert blocked.exit_code == 1
    assert blocked.stderr.startswith("error: ")
    assert "cannot be written" in blocked.stderr


def test_a_directory_has_one_run_at_a_time(tmp_path: Path) -> None:
    def begin() -> None:
        with sole_run(tmp_path / "run"):
            pass

    with sole_run(tmp_path / "run"), pytest.raises(ConfigError, match="another process is writing to"):
        begin()
    begin()


def test_a_dataset_without_splits_is_not_trained_on_and_evaluated_on_at_once(data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    for number, image in enumerate(sorted((root / "colours" / "images").iterdir())):
        label = root / "mine" / ("odd" if number % 2 else "even")
        label.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, label)
    config = narrowed(recipe(), root=root, datasets=["colours", "mine"])
    with pytest.raises(ConfigError, match="mine does not state its splits"):
        survey(config, data=root, directory=tmp_path, base=None)


def test_what_differs_from_the_run_in_a_directory_is_named(tmp_path: Path) -> None:
    claim_directory(tmp_path, json.dumps({"seed": 1, "stage": {"epochs": 2}, "name": "x"}))
    with pytest.raises(ConfigError, match=r"another recipe \(seed 1 there, 3 here; stage.epochs 2 there, 4 here\)"):
        claim_directory(tmp_path, json.dumps({"seed": 3, "stage": {"epochs": 4}, "name": "x"}))


def test_a_misspelt_recipe_names_the_nearest(data: Path, tmp_path: Path) -> None:
    result = run("tinny", "--data", data, "--output", tmp_path)
    assert result.exit_code == 2
    assert "did you mean tiny?" in result.stderr
