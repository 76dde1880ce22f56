"""Stage 3 and its baselines from one dense checkpoint: what each of them moves, and that the start is the same."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.errors import ConfigError
from medmoe.model.files.weight_files import weights_sha256
from medmoe.model.medmoe import MedMoE
from medmoe.training.config import RunConfig
from medmoe.training.pipeline import Run
from medmoe.training.recipes.baselines import dense_sft, moe, moe_learned_router, moe_without_meta
from tests.support.images.colours import RUNTIME, colours_recipe, write_colours

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(colours_recipe(), data=data, directory=tmp_path_factory.mktemp("whole"), runtime=RUNTIME)
    run()
    return run


@pytest.fixture(scope="module")
def base(whole: Run) -> Path:
    return whole.checkpoint.parent / "2-instruction_tuning"


def start(config: RunConfig, *, base: Path, data: Path, directory: Path) -> Run:
    run = Run(config, data=data, directory=directory, base=base, features=base.parent / "features", runtime=RUNTIME)
    run()
    return run


def differing(first: MedMoE, second: MedMoE) -> set[str]:
    ours, theirs = first.state_dict(), second.state_dict()
    return {name for name in ours if name in theirs and not torch.equal(ours[name], theirs[name])}


def test_the_paper_from_a_base_is_the_paper_from_the_start(whole: Run, base: Path, data: Path, tmp_path: Path) -> None:
    run = start(colours_recipe(), base=base, data=data, directory=tmp_path)
    assert weights_sha256(whole.checkpoint) == weights_sha256(run.checkpoint)
    assert sorted(path.name for path in tmp_path.iterdir() if (path / "config.json").exists()) == [
        "3-router",
        "colours",
    ]
    assert not (tmp_path / "features").exists()
    assert json.loads((tmp_path / "recipe.json").read_text())["base"]["name"] == "tiny"


@pytest.mark.parametrize("baseline", [moe, moe_learned_router])
def test_a_learned_gate_moves(baseline: object, base: Path, data: Path, tmp_path: Path) -> None:
    assert callable(baseline)
    run = start(baseline(colours_recipe()), base=base, data=data, directory=tmp_path)
    before, after = load_checkpoint(tmp_path / "3-router"), load_checkpoint(run.checkpoint)
    moved = differing(before, after)
    gates = {name for name in before.state_dict() if ".mlp.gate." in name}
    assert gates <= moved
    assert all(".mlp." in name for name in moved)
    first, second = (before.language_model.model.layers[layer].mlp.gate.weight for layer in (0, 2))
    assert not torch.equal(first, second)
    assert after.config.expert_domains == ()
    assert "router" not in run.report


def test_a_domain_gate_does_not_move(base: Path, data: Path, tmp_path: Path) -> None:
    run = start(moe_without_meta(colours_recipe()), base=base, data=data, directory=tmp_path)
    before, after = load_checkpoint(tmp_path / "3-router"), load_checkpoint(run.checkpoint)
    moved = differing(before, after)
    assert moved
    assert all(".mlp.experts." in name for name in moved)
    assert not any("shared_expert" in name for name in after.state_dict())
    assert run.report["router"]["label_map"]


def test_the_dense_baseline_has_no_experts_and_moves_its_ffns(base: Path, data: Path, tmp_path: Path) -> None:
    run = start(dense_sft(colours_recipe()), base=base, data=data, directory=tmp_path)
    before, after = load_checkpoint(base), load_checkpoint(run.checkpoint)
    assert before.state_dict().keys() == after.state_dict().keys()
    moved = differing(before, after)
    assert {name.split(".mlp.")[0] for name in moved} == {f"language_model.model.layers.{layer}" for layer in range(3)}
    assert after.config.name == "colours-dense-sft"
    assert not (tmp_path / "3-router").exists()
    # What it was made of is part of the run: another base would not continue it.
    with pytest.raises(ConfigError, match="another recipe or base"):
        start(dense_sft(colours_recipe()), base=base.parent / "0-start", data=data, directory=tmp_path)


def test_a_function_preserving_start_answers_as_its_base_does(base: Path, data: Path, tmp_path: Path) -> None:
    run = Run(
        replace(moe_learned_router(colours_recipe()), function_preserving=True),
        data=data,
        directory=tmp_path,
        base=base,
        features=base.parent / "features",
    )
    with patch("medmoe.training.pipeline.train_stage", side_effect=ConfigError("enough")), pytest.raises(ConfigError):
        run()
    upcycled, dense = load_checkpoint(tmp_path / "3-router"), load_checkpoint(base)
    ids = torch.tensor([[1, 3, 3, 3, 3, 50, 51, 52]])
    features = torch.randn(1, 16, 32)
    with torch.no_grad():
        states = [model.hidden_states(ids, torch.ones_like(ids), features) for model in (upcycled, dense)]
    torch.testing.assert_close(*states)


def test_a_base_of_another_shape_is_refused_before_anything_is_written(base: Path, data: Path, tmp_path: Path) -> None:
    recipe = colours_recipe()
    text = recipe.architecture.text_config.model_copy(update={"rope_theta": 5000.0})
    other = replace(recipe, architecture=recipe.architecture.model_copy(update={"text_config": text}))
    with pytest.raises(ConfigError, match=r"text_config\.rope_theta"):
        start(other, base=base, data=data, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_base_with_experts_is_refused(whole: Run, base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dense checkpoint"):
        Run(colours_recipe(), data=data, directory=tmp_path / "run", base=whole.checkpoint)()
