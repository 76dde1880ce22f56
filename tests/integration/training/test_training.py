"""Every stage end to end on made-up images, small enough for seconds on a CPU."""

import hashlib
import json
import logging
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from medmoe.model.checkpoint.io import load_checkpoint, model_tensors
from medmoe.model.errors import ConfigError
from medmoe.model.files.weight_files import weights_sha256
from medmoe.model.moe import MoE
from medmoe.training.config import DataConfig, RunConfig
from medmoe.training.data.errors import DataError
from medmoe.training.model_card.card import write_model_card
from medmoe.training.pipeline import Run
from tests.support.images.colours import COLOURS, colours_recipe, write_colours

# Tiny tensors are faster on one thread, and much faster beside another process.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("data"), train=64, val=16, test=16)


def recipe() -> RunConfig:
    return colours_recipe(epochs=(3, 10, 4), batch_size=8, per_domain=16, router_epochs=30)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(recipe(), data=data, directory=tmp_path_factory.mktemp("run"), tower=None)
    run()
    return run


def test_all_stages_give_a_checkpoint_that_loads(finished: Run) -> None:
    model = load_checkpoint(finished.checkpoint)
    assert [m for m in model.modules() if isinstance(m, MoE)]
    assert model.config.expert_domains == tuple(COLOURS)


def test_the_model_card_states_data_and_scores_of_this_run(finished: Run, data: Path) -> None:
    write_model_card(finished, data=data)
    card = (finished.checkpoint / "README.md").read_text()
    digest = weights_sha256(finished.checkpoint)
    assert digest in card
    assert "not a medical device" in card
    assert "| colours | not recorded here: ask its owner |" in card
    assert "| colours | model | 16 |" in card
    manifest = (finished.checkpoint.parent / "manifest.json").read_bytes()
    assert hashlib.sha256(manifest).hexdigest() in card
    assert hashlib.sha256(finished.config.to_json().encode()).hexdigest() in card
    assert "trained on 64 images. On 16 held-out images" in card
    assert "| colours | question alone, image blanked baseline | 16 |" in card
    assert "0 of them on an image that is in train too" in card
    for place in (str(data), str(finished.checkpoint.parent)):
        assert place not in card


def test_the_same_run_writes_the_same_card_and_leaves_its_evaluation(finished: Run, data: Path) -> None:
    write_model_card(finished, data=data, command="medmoe train colours")
    first = (finished.checkpoint / "README.md").read_text()
    write_model_card(finished, data=data, command="medmoe train colours")
    assert (finished.checkpoint / "README.md").read_text() == first
    figures = {path.name for path in (finished.checkpoint.parent / "evaluation").glob("*.png")}
    assert figures >= {"training-loss.png", "experts-by-modality.png", "reliability-colours-vqa.png"}


def test_a_file_that_is_no_image_is_named_and_can_be_repaired(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    image = broken / "colours" / "images" / "3.png"
    image.write_text("not an image")
    run = Run(recipe(), data=broken, directory=tmp_path / "run", tower=None)
    with pytest.raises(DataError, match=r"3\.png"):
        run()
    shutil.copy(data / "colours" / "images" / "3.png", image)
    monkeypatch.setattr("medmoe.training.pipeline.train_stage", _killed)
    with pytest.raises(KeyboardInterrupt):
        run()


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_features_that_were_lost_are_computed_again(finished: Run, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.checkpoint.parent, copy)
    (features,) = (copy / "features").glob("*/features.float16")
    features.write_bytes(features.read_bytes()[:-10])
    shutil.rmtree(copy / "colours")
    Run(recipe(), data=data, directory=copy, tower=None)()
    first, second = load_checkpoint(finished.checkpoint).state_dict(), load_checkpoint(copy / "colours").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_experts_cannot_be_named_otherwise_than_the_router_was_trained() -> None:
    with pytest.raises(ValueError, match="expert_domains"):
        replace(recipe(), router=replace(recipe().router, domains=("MRI", "CT", "X-ray", "pathology")))


def test_the_loss_falls_in_instruction_tuning(finished: Run) -> None:
    stage = finished.report["instruction_tuning"]
    assert stage["last_loss"] < stage["first_loss"] / 4


def test_the_router_knows_images_it_has_not_seen(finished: Run) -> None:
    report = finished.report["router"]
    assert report["label_map"] == {domain: index for index, domain in enumerate(COLOURS)}
    assert report["held_out"]["accuracy"] > 0.9


def test_the_router_stays_frozen_while_the_experts_move(finished: Run) -> None:
    before = load_checkpoint(finished.checkpoint.parent / "3-router").state_dict()
    after = load_checkpoint(finished.checkpoint).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(".mlp.experts." in name or ".mlp.shared_expert." in name for name in moved)


def test_a_continued_run_equals_an_uninterrupted_one(
    finished: Run, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last stage is lost and done again, from what lies on disk alone."""
    copy = tmp_path / "copy"
    shutil.copytree(finished.checkpoint.parent, copy)
    shutil.rmtree(copy / "colours")
    report = json.loads((copy / "report.json").read_text())
    (copy / "report.json").write_text(json.dumps(report | {"origins": {"tower": "The vision tower comes from here."}}))
    random.random()
    torch.rand(5)
    with caplog.at_level(logging.INFO):
        Run(recipe(), data=data, directory=copy, tower=tmp_path / "another tower")()
    assert "The vision tower comes from here." in caplog.messages
    first, second = load_checkpoint(finished.checkpoint).state_dict(), load_checkpoint(copy / "colours").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_stage_of_several_seeds_is_the_mean_of_their_weights(finished: Run, data: Path, tmp_path: Path) -> None:
    config = replace(recipe(), moe_tuning=replace(recipe().moe_tuning, seeds=2, epochs=1))
    directory = tmp_path / "run"
    shutil.copytree(finished.checkpoint.parent, directory, ignore=shutil.ignore_patterns(config.name, "recipe.json"))
    (directory / "recipe.json").write_text(config.to_json())
    run = Run(config, data=data, directory=directory, tower=None)
    run()
    members = [
        model_tensors(load_checkpoint(directory / f"moe_tuning-{seed}")) for seed in (config.seed, config.seed + 1)
    ]
    found = model_tensors(load_checkpoint(run.checkpoint))
    name = next(name for name in found if ".experts." in name)
    assert not torch.equal(members[0][name], members[1][name])
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, (members[0][name] + members[1][name]) / 2, rtol=1e-2, atol=1e-3)
    assert run.report["moe_tuning"]["seconds"] > run.report[f"moe_tuning-{config.seed}"]["seconds"]
    assert run.report["moe_tuning"]["steps"] == 2 * run.report[f"moe_tuning-{config.seed}"]["steps"]
    shutil.rmtree(run.checkpoint)
    shutil.rmtree(directory / f"moe_tuning-{config.seed + 1}")
    Run(config, data=data, directory=directory, tower=None)()
    for name, tensor in model_tensors(load_checkpoint(run.checkpoint)).items():
        assert torch.equal(tensor, found[name]), name


def test_the_seeds_of_a_stage_draw_images_of_their_own(data: Path, tmp_path: Path) -> None:
    """No other stage reads them: without their features the run would end."""
    whole = colours_recipe(epochs=(1, 1, 1), batch_size=8, router_epochs=1)
    few = (replace(whole.moe_tuning.data[0], limit=8),)
    alignment, questions, experts = (
        replace(stage, data=few) for stage in (whole.alignment, whole.instruction_tuning, whole.moe_tuning)
    )
    assert whole.router is not None
    config = replace(
        whole,
        alignment=alignment,
        instruction_tuning=questions,
        router=replace(whole.router, data=(replace(whole.router.data[0], split="val"),)),
        moe_tuning=replace(experts, seeds=3),
    )
    run = Run(config, data=data, directory=tmp_path / "run", tower=None)
    run()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert 8 < manifest["splits"]["train"]["images"] <= 24


def test_a_directory_of_another_recipe_is_refused(finished: Run, data: Path) -> None:
    other = Run(replace(recipe(), seed=8), data=data, directory=finished.checkpoint.parent, tower=None)
    with pytest.raises(ConfigError, match="another recipe"):
        other()


def test_a_continued_run_on_other_data_is_refused(finished: Run, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "data"
    shutil.copytree(data, other)
    image = other / "colours" / "images" / "0.png"
    Image.open(image).rotate(90).save(image)
    copy = tmp_path / "copy"
    shutil.copytree(finished.checkpoint.parent, copy)
    with pytest.raises(ConfigError, match="the data have changed"):
        Run(recipe(), data=other, directory=copy, tower=None)()


def test_the_manifest_names_every_split_and_no_path_or_question(finished: Run, data: Path) -> None:
    text = (finished.checkpoint.parent / "manifest.json").read_text()
    splits = json.loads(text)["splits"]
    assert (splits["train"]["images"], splits["val"]["images"]) == (64, 16)
    assert str(data) not in text
    assert "What modality" not in text


def test_bad_data_stop_the_run_before_any_training(data: Path, tmp_path: Path) -> None:
    missing = replace(recipe().moe_tuning, data=(DataConfig(dataset="nowhere", source="vqa"),))
    run = Run(replace(recipe(), moe_tuning=missing), data=data, directory=tmp_path / "run", tower=None)
    with pytest.raises(DataError, match="nowhere"):
        run()
    assert not (tmp_path / "run" / "1-alignment").exists()


def test_a_domain_without_training_images_stops_the_run_before_any_training(tmp_path: Path) -> None:
    data = write_colours(tmp_path / "data")
    for name in ("records.jsonl", "captions.jsonl"):
        lines = (data / "colours" / name).read_text().splitlines()
        (data / "colours" / name).write_text("\n".join(line for line in lines if '"pathology"' not in line))
    with pytest.raises(DataError, match="the router has no training image of pathology: read a dataset that has some"):
        Run(recipe(), data=data, directory=tmp_path / "run", tower=None)()
    assert not (tmp_path / "run" / "1-alignment").exists()
