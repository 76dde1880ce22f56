"""The ablation command on made-up images: one base, three kinds of method, and nothing that is trained twice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from medmoe.model.errors import ConfigError
from medmoe.model.lora.schedule import layer_of_ranks
from medmoe.training.ablation import __main__ as command
from medmoe.training.ablation.budget import Budget, check_equal
from medmoe.training.config import DataConfig, RunConfig, StageConfig
from medmoe.training.lora.config import LoRARunConfig
from medmoe.training.recipes import baselines
from medmoe.training.recipes.catalogue import Recipe
from medmoe.training.recipes.trainable import ADAPTERS, EXPERTS
from tests.support.checkpoints.tiny import save_tiny_checkpoint, tiny_config

torch.set_num_threads(1)
METHODS = ("dense-sft", "learned", "lora")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images, 16 of them to train on, each with a closed question and a label."""
    root = tmp_path_factory.mktemp("data")
    for name in ("asked", "kinds"):
        (root / name / "images").mkdir(parents=True)
        records = []
        for number in range(24):
            Image.new("L", (40, 24), 10 * number).save(root / name / "images" / f"{number}.png")
            fields: dict[str, Any] = {"id": f"{name}/{number}", "image": f"images/{number}.png", "modality": "CT"}
            fields["split"] = "train" if number < 16 else "test"
            answer = "yes" if number % 2 else "no"
            if name == "asked":
                fields |= {"task": "vqa", "question": "Odd?", "answer": answer, "answer_type": "closed"}
            else:
                fields |= {"task": "classification", "label": answer, "label_set": ["no", "yes"]}
            records.append(fields)
        (root / name / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny", moe_layers=())


def stage(**changes: Any) -> StageConfig:
    entry = DataConfig(dataset="asked", source="vqa")
    fields: dict[str, Any] = {"name": "tuning", "data": (entry,), "trainable": (EXPERTS,), "epochs": 4.0}
    return StageConfig(**{**fields, "learning_rate": 1e-3, "batch_size": 8, **changes})


def learned() -> RunConfig:
    whole = tiny_config().model_copy(update={"expert_domains": ()})
    return RunConfig(
        name="learned",
        seed=0,
        architecture=whole,
        tokenizer_size=320,
        alignment=stage(name="alignment"),
        instruction_tuning=stage(name="instruction_tuning"),
        router=None,
        routing="learned",
        moe_tuning=stage(),
        evaluation=("asked",),
    )


def lora() -> LoRARunConfig:
    layers = (layer_of_ranks((2,), n_anchor=0),) * 3
    return LoRARunConfig(name="lora", seed=0, layers=layers, stage=stage(trainable=(ADAPTERS,)))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The catalogue is ours; what is really trained is written down."""
    recipes = {
        "dense-sft": Recipe(about="", build=lambda: replace(baselines.dense_sft(learned()), routing="domain")),
        "learned": Recipe(about="", build=learned),
        "lora": Recipe(about="", build=lora),
    }
    monkeypatch.setattr(command, "RECIPES", recipes)
    from medmoe.training.ablation import trial as module

    names: list[str] = []
    for kind in ("Run", "LoRARun"):
        original = getattr(module, kind)

        def watched(config: Any, *, _original: Any = original, **rest: Any) -> Any:
            names.append(f"{config.name}/{config.seed}")
            return _original(config, **rest)

        monkeypatch.setattr(module, kind, watched)
    return names


def ablate(base: Path, data: Path, output: Path, *seeds: int, epochs: float = 1) -> Any:
    arguments = [base, "--data", data, "--output", output, "--dataset", "asked", "--dataset", "kinds"]
    arguments += ["--reference", "dense-sft", "--epochs", epochs, "--max-tokens", 3]
    for name in METHODS:
        arguments += ["--recipe", name]
    for seed in seeds:
        arguments += ["--seed", seed]
    return CliRunner().invoke(command.app, [str(argument) for argument in arguments])


def test_a_reference_that_is_no_method_of_the_run_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    arguments = [base, "--data", data, "--output", tmp_path / "out", "--dataset", "asked", "--reference", "tinny"]
    refused = CliRunner().invoke(command.app, [str(argument) for argument in arguments])
    assert refused.exit_code == 2
    assert "--reference tinny is no method of this run" in refused.output


def test_methods_are_set_beside_the_base_and_nothing_is_trained_twice(
    base: Path, data: Path, tmp_path: Path, trained: list[str]
) -> None:
    first = ablate(base, data, tmp_path / "out", 1)
    assert first.exit_code == 0, first.output
    assert len(trained) == len(METHODS)
    table = (tmp_path / "out" / "ablation.md").read_text()
    again = ablate(base, data, tmp_path / "out", 1)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "out" / "ablation.md").read_text() == table
    assert len(trained) == len(METHODS)

    (tmp_path / "out" / "lora-seed1" / "result.json").unlink()
    second = ablate(base, data, tmp_path / "out", 1, 2)
    assert second.exit_code == 0, second.output
    assert [name.rpartition("/")[2] for name in trained[len(METHODS) :]] == ["1", "2", "2", "2"]

    found = json.loads((tmp_path / "out" / "ablation.json").read_text())
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == ["base", *METHODS]
    assert rows["base"]["seeds"] == []
    assert [rows[name]["seeds"] for name in METHODS] == [[1, 2]] * 3
    assert [rows[name]["steps"] for name in METHODS] == [2] * 3
    assert rows["base"]["total"] == rows["dense-sft"]["total"] < rows["lora"]["total"] < rows["learned"]["total"]
    assert rows["learned"]["activated"] < rows["learned"]["total"]
    assert set(rows["lora"]["figures"]) == {"asked closed", "kinds accuracy"}
    assert rows["dense-sft"]["figures"]["asked closed"]["difference"] is None
    assert rows["lora"]["figures"]["asked closed"]["difference"]["n"] == 8


def test_another_budget_needs_another_folder(base: Path, data: Path, tmp_path: Path, trained: list[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.json").write_text("{}")
    found = ablate(base, data, tmp_path / "out")
    assert found.exit_code == 1
    assert "another ablation" in found.output
    assert not trained


def test_unequal_budgets_are_refused() -> None:
    unequal = {"learned": learned(), "lora": replace(lora(), stage=stage(trainable=(ADAPTERS,), epochs=5.0))}
    with pytest.raises(ConfigError, match="lora and learned differ in epochs"):
        check_equal(unequal)
    equal = {name: Budget(epochs=1)(config, seed=3) for name, config in unequal.items()}
    check_equal(equal)
    assert {config.seed for config in equal.values()} == {3}
