"""Answers of a tiny model: by id, whatever the batches; label likelihoods agree with a plain forward pass."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from medmoe.model.image_processor import ImageProcessor
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.__main__ import app
from medmoe.training.evaluation.image_features import ImageFeatures
from medmoe.training.evaluation.predictors import LocalPredictor
from tests.tiny import save_tiny_checkpoint, tiny_config, tiny_tokenizer

LABELS = ("CT", "MRI", "X-ray of the chest")


@pytest.fixture(scope="module")
def model() -> MedMoE:
    torch.manual_seed(0)
    model = MedMoE(tiny_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.1)
    return model


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    return Prompt(tiny_config(), tokenizer=tiny_tokenizer())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{shade}.png" for shade in (10, 120, 240)]
    for path in paths:
        Image.new("L", (40, 24), int(path.stem)).save(path)
    return paths


def predictor(model: MedMoE, prompt: Prompt, **options: Any) -> LocalPredictor:
    features = ImageFeatures(model, processor=ImageProcessor.from_config(model.config))
    return LocalPredictor(model, prompt=prompt, features=features, **({"max_tokens": 5} | options))


def asked(pictures: list[Path]) -> list[Sample]:
    questions = ["What?", "What modality is used to take this image?", "Is there a fracture?"]
    return [
        Sample(id=f"q{i}", dataset="d", image=image, split="test", question=question, answer="CT")
        for i, (image, question) in enumerate(zip(pictures, questions, strict=True))
    ]


def shown(pictures: list[Path]) -> list[Sample]:
    return [
        Sample(id=f"c{i}", dataset="d", image=image, split="test", answer="CT", labels=LABELS)
        for i, image in enumerate(pictures)
    ]


def test_batches_do_not_change_answers(model: MedMoE, prompt: Prompt, pictures: list[Path]) -> None:
    samples = asked(pictures) + shown(pictures)
    alone = dict(predictor(model, prompt, batch_size=1).predict(samples))
    together = dict(predictor(model, prompt, batch_size=8).predict(samples))
    assert alone == together
    assert list(alone) == [sample.id for sample in samples]
    assert {alone[sample.id] for sample in shown(pictures)} <= set(LABELS)


def test_label_likelihood_is_that_of_every_token_and_the_end(
    model: MedMoE, prompt: Prompt, pictures: list[Path]
) -> None:
    sample = shown(pictures)[1]
    found = predictor(model, prompt, batch_size=2).label_log_likelihoods([sample])[0]
    with Image.open(sample.image) as image:
        pixels = torch.from_numpy(ImageProcessor.from_config(model.config)(image))[None]
    question = prompt.expand(prompt.question(prompt.classification(LABELS)))
    for label in LABELS:
        answer = prompt.answer(label)
        ids = torch.tensor([question + answer])
        with torch.no_grad():
            log_p = model(ids, torch.ones_like(ids), pixels)[0].log_softmax(-1)
        expected = sum(float(log_p[len(question) - 1 + place, token]) for place, token in enumerate(answer))
        assert found[label] == pytest.approx(expected, abs=1e-3)


def test_label_probabilities_sum_to_one(model: MedMoE, prompt: Prompt, pictures: list[Path]) -> None:
    for shares in predictor(model, prompt).label_probabilities(shown(pictures)):
        assert tuple(shares) == LABELS
        assert sum(shares.values()) == pytest.approx(1)


def test_prompt_without_room_for_an_answer_names_its_sample(
    model: MedMoE, prompt: Prompt, pictures: list[Path]
) -> None:
    with pytest.raises(DataError, match="q0"):
        predictor(model, prompt, max_tokens=512).answers(asked(pictures))


def test_file_that_is_no_picture_is_named(model: MedMoE, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        ImageFeatures(model, processor=ImageProcessor.from_config(model.config))(path)


def dataset(folder: Path, pictures: list[Path]) -> Path:
    (folder / "images").mkdir(parents=True)
    records = []
    for split, image in zip(("train", "test", "test"), (pictures[0], pictures[0], pictures[1]), strict=True):
        name = f"{split}{image.name}"
        (folder / "images" / name).write_bytes(image.read_bytes())
        records.append(
            {"id": f"d/{len(records)}", "task": "vqa", "image": f"images/{name}", "split": split, "question": "What?"}
            | {"answer": "CT", "answer_type": "closed", "modality": "CT"}
        )
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    return folder


def test_command_prints_a_table_and_writes_the_report(tmp_path: Path, pictures: list[Path]) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny")
    data = dataset(tmp_path / "data" / "organs", pictures).parent
    output = tmp_path / "report.json"
    result = CliRunner().invoke(
        app,
        [str(checkpoint), "--data", str(data), "--dataset", "organs", "--max-tokens", "3", "--output", str(output)],
    )
    assert result.exit_code == 0, result.output
    assert "| organs | majority baseline | 2 | 100.0" in result.output
    assert "1 of 2 samples share an image with train." in result.output
    assert json.loads(output.read_text())["sections"][0]["n"] == 2


def test_command_says_what_is_wrong_and_fails(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path), "--data", str(tmp_path), "--dataset", "absent"])
    assert result.exit_code == 1
    assert "records.jsonl cannot be read" in result.output
