"""The experiment on forgetting, on drawn images: every kind of method, nothing trained twice, and clear refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from medmoe.model.lora.adapter_config import AdapterConfig
from medmoe.training.forgetting.__main__ import app
from medmoe.training.forgetting.methods import METHODS, Adaptation, adapter_parameters
from tests.support.checkpoints.tiny import save_tiny_checkpoint, tiny_config

torch.set_num_threads(1)
CHOSEN = ("full", "lora-matched", "med-moe-lora-replay")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets of questions and one of labels: 16 images each to train on, and 8 to be tested."""
    root = tmp_path_factory.mktemp("data")
    for name in ("known", "asked", "kinds"):
        (root / name / "images").mkdir(parents=True)
        records = []
        for number in range(24):
            Image.new("L", (32, 32), 10 * number).save(root / name / "images" / f"{number}.png")
            fields: dict[str, Any] = {"id": f"{name}/{number}", "image": f"images/{number}.png"}
            fields["split"] = "train" if number < 16 else "test"
            answer = "yes" if number % 2 else "no"
            if name == "kinds":
                fields |= {"task": "classification", "label": answer, "label_set": ["no", "yes"]}
            else:
                fields |= {"task": "vqa", "question": f"Is it {name}?", "answer": answer, "answer_type": "closed"}
            records.append(fields)
        (root / name / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny", moe_layers=())


def forgetting(base: Path, data: Path, output: Path, *more: object, old: str = "known") -> Any:
    arguments = [base, "--data", data, "--output", output, "--old", old, "--new", "asked", "--new", "kinds"]
    arguments += ["--max-tokens", 3, "--batch-size", 16, *more]
    for name in CHOSEN:
        arguments += ["--method", name]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_methods_are_compared_on_old_and_new_tasks_and_finished_runs_are_kept(
    base: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    planned = forgetting(base, data, output, "--plan")
    assert planned.exit_code == 0, planned.output
    assert "3 methods with 3 seeds: 9 runs are left to do" in planned.output
    first = forgetting(base, data, output, "--seeds", 1)
    assert first.exit_code == 0, first.output
    finished = {path: path.stat().st_mtime_ns for path in output.glob("*/result.json")}
    assert len(finished) == 1 + len(CHOSEN)
    gone = output / "full-seed0" / "result.json"
    gone.unlink()
    again = forgetting(base, data, output, "--seeds", 1)
    assert again.exit_code == 0, again.output
    assert {path for path, time in finished.items() if path.stat().st_mtime_ns != time} == {gone}

    found = json.loads((output / "forgetting.json").read_text())
    by_method = {summary["method"]: summary for summary in found["summaries"]}
    assert list(by_method) == ["base", *CHOSEN]
    assert set(found["rows"][0]["figures"]) == {"known closed", "asked closed", "kinds accuracy"}
    assert [row["steps"] for row in found["rows"]] == [0, 2, 2, 3]
    (before,), (after,) = (by_method[name]["old"]["by_seed"] for name in ("base", "full"))
    assert by_method["full"]["forgotten"]["by_seed"] == [before - after]
    # A quarter of the experts of every layer are anchors, and the routers have hardly moved from equal gates.
    gates = by_method["med-moe-lora-replay"]["gates"]
    assert gates["old"]["anchor_mass"] == pytest.approx(1 / 4, abs=0.02)
    assert gates["new"]["entropy"] == pytest.approx(1, abs=0.02)
    assert by_method["lora-matched"]["gates"] is None
    adapter = AdapterConfig.from_directory(output / "med-moe-lora-replay-seed0" / "med-moe-lora-replay")
    assert adapter.training["samples"] == {"general": 6, "medical": 32}
    table = (output / "forgetting.md").read_text()
    assert f"| {CHOSEN[0]} | 1 |" in table
    assert (output / "forgetting.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_compared_is_refused_before_training(base: Path, data: Path, tmp_path: Path) -> None:
    experts = save_tiny_checkpoint(tmp_path / "experts")
    unsplit = Path(shutil.copytree(data, tmp_path / "data"))
    for label in ("yes", "no"):
        shutil.copytree(data / "known" / "images", unsplit / "mine" / label)
    refused = [
        (forgetting(experts, data, tmp_path / "out"), "has MoE layers"),
        (forgetting(base, data, tmp_path / "out", old="asked"), "asked is among the old tasks and the new ones"),
        (forgetting(base, data, tmp_path / "out", "--split", "val"), "none of the datasets has a val split"),
        (forgetting(base, data, tmp_path / "out", "--method", "prompting"), "no method 'prompting'"),
        (forgetting(base, data, tmp_path / "out", old="absent"), "absent"),
        (forgetting(base, unsplit, tmp_path / "out", "--new", "mine"), "mine does not state its splits"),
    ]
    for result, message in refused:
        assert result.exit_code in (1, 2)
        assert message in result.output
    assert not (tmp_path / "out").exists()


def test_matched_adapters_have_nearly_the_same_number_of_parameters() -> None:
    config = tiny_config(moe_layers=())
    adaptation = Adaptation(base=config, new=(), replay=(), epochs=1)
    for matched, experts in (("lora-matched", "med-moe-lora-null"), ("lora-matched-replay", "med-moe-lora-replay")):
        sizes = [adapter_parameters(METHODS[name](adaptation, seed=0).layers, config) for name in (matched, experts)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.03)
        assert sizes[0] > adapter_parameters(METHODS["lora-r16"](adaptation, seed=0).layers, config)
