"""`medmoe export-peft` from a checkpoint directory and a dataset to a PEFT adapter."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from medmoe.model.cli import single_command
from medmoe.training.data.sample import Sample
from medmoe.training.lora.export_peft import export_peft
from tests.support.checkpoints.tiny_lora import save_tiny_adapted


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "organs" / "images").mkdir(parents=True)
    records = []
    for number in range(3):
        Image.new("L", (40, 24), 60 * number).save(tmp_path / "data" / "organs" / "images" / f"{number}.png")
        fields = {"question": "What?", "answer": "CT", "answer_type": "closed", "question_type": "organ"}
        place = {"id": f"organs/{number}", "image": f"images/{number}.png", "modality": "CT"}
        records.append(fields | place | {"task": "vqa", "split": "train"})
    (tmp_path / "data" / "organs" / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    return tmp_path / "data"


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(single_command(export_peft), [str(argument) for argument in arguments])


def test_an_adapter_becomes_an_ordinary_lora(data: Path, tmp_path: Path) -> None:
    checkpoint, output = save_tiny_adapted(tmp_path / "adapted"), tmp_path / "peft"
    found = run(checkpoint, output, "--data", data, "--dataset", "organs")
    assert found.exit_code == 0, found.output
    assert "over 3 samples" in found.output
    config = json.loads((output / "adapter_config.json").read_text())
    tensors = load_file(output / "adapter_model.safetensors")
    assert config["peft_type"] == "LORA"
    assert tensors
    assert all(config["r"] in tensor.shape for tensor in tensors.values())
    assert "APPROXIMATE" in (output / "README.md").read_text()
    assert run(checkpoint, output, "--data", data, "--dataset", "organs").exit_code == 2


def test_the_gates_are_those_of_samples_from_the_whole_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        image = tmp_path / "data" / "kinds" / ("CT" if number < 20 else "MRI") / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(image)
    seen: list[Sample] = []

    def recorded(_: Path, samples: Sequence[Sample]) -> dict[str, Any]:
        seen.extend(samples)
        return {}

    monkeypatch.setattr("medmoe.training.lora.export_peft._mean_gates", recorded)
    run(
        save_tiny_adapted(tmp_path / "adapted"),
        tmp_path / "peft",
        "--data",
        tmp_path / "data",
        "--dataset",
        "kinds",
        "--limit",
        10,
    )
    assert len(seen) == 10
    assert {sample.answer for sample in seen} == {"CT", "MRI"}


def test_a_checkpoint_without_an_adapter_is_refused(data: Path, tmp_path: Path) -> None:
    save_tiny_adapted(tmp_path / "adapted")
    found = run(tmp_path / "adapted-base", tmp_path / "peft", "--data", data, "--dataset", "organs")
    assert found.exit_code == 1
    assert "adapter" in found.stderr
    assert not (tmp_path / "peft").exists()
