"""A checkpoint that carries calibration.json is answered with calibrated numbers that say so."""

import json
import math
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager

from medmoe.client import AsyncClient
from medmoe.model.config import MedMoEConfig
from medmoe.model.files.digest import file_sha256
from medmoe.model.prompt import Prompt
from medmoe.server.admission.readiness import Phase
from medmoe.server.app import create_app
from medmoe.server.engine.fake_engine import FakeEngine
from medmoe.server.settings import Settings
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.server_predictor import ServerPredictor
from tests.integration.conftest import Service, ServiceFactory, base64_image, image_bytes

LABELS = ["CT", "MRI", "X-ray"]
_COMMON = {
    "fitted_on": {"datasets": ["slake"], "split": "val", "n": 60},
    "held_out": {"n": 40, "ece_before": 0.2, "ece_after": 0.03, "nll_before": 1.0, "nll_after": 0.5},
}
CLASSIFICATION = {"labels": LABELS, "map": {"method": "temperature", "temperature": 2.0}, **_COMMON}
ANSWERS = {"map": {"method": "isotonic", "x": [0.0, 1.0], "y": [0.25, 0.75]}, **_COMMON}


def calibrate(checkpoint: Path, target: Path, **kinds: Any) -> Path:
    """A copy of `checkpoint` that has weights, as far as their digest goes, and a calibration fitted to them."""
    shutil.copytree(checkpoint, target)
    weights = target / "model.safetensors"
    weights.write_bytes(b"weights")
    prompt = Prompt.from_directory(target, MedMoEConfig.from_directory(target))
    bound = {"prompt_sha256": prompt.sha256, "dtypes": ["float32"]}
    fits: dict[str, Any] = {name: {"bound_to": bound, **fit} for name, fit in kinds.items()}
    if "classification" in fits:
        fits["classification"] = [fits["classification"]]
    content = {"format_version": 1, "weights_sha256": file_sha256(weights), **fits}
    (target / "calibration.json").write_text(json.dumps(content))
    return target


@pytest.fixture
async def calibrated(running: ServiceFactory, checkpoint: Path, tmp_path: Path) -> AsyncIterator[Service]:
    directory = calibrate(checkpoint, tmp_path / "calibrated", classification=CLASSIFICATION, answers=ANSWERS)
    async with running(model=directory) as service:
        yield service


async def classify(service: Service, **fields: Any) -> dict[str, Any]:
    body = {"image": base64_image(), "labels": LABELS, **fields}
    response = await service.client.post("/v1/classify", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def ask(service: Service, **fields: Any) -> dict[str, Any]:
    body = {"image": base64_image(), "question": "Is there a fracture?", **fields}
    response = await service.client.post("/v1/vqa", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_label_probabilities_are_the_models_own_through_the_map(calibrated: Service) -> None:
    answer = await classify(calibrated)
    # Temperature 2 halves every log-probability.
    weights = [math.exp(row["log_likelihood"] / 2) for row in answer["probabilities"]]
    expected = [weight / sum(weights) for weight in weights]
    assert [row["probability"] for row in answer["probabilities"]] == pytest.approx(expected)
    assert answer["entropy"] == pytest.approx(-sum(p * math.log(p) for p in expected))
    first, second, _ = sorted(expected, reverse=True)
    assert answer["margin"] == pytest.approx(first - second)
    assert answer["calibration"] == {
        "method": "temperature",
        "temperature": 2.0,
        "datasets": ["slake"],
        "split": "val",
        "fitted_on": 60,
        "held_out": 40,
        "ece_before": 0.2,
        "ece_after": 0.03,
    }


async def test_calibration_changes_neither_the_label_nor_the_likelihoods(calibrated: Service, service: Service) -> None:
    with_map, without = await classify(calibrated), await classify(service)
    assert with_map["label"] == without["label"]
    assert with_map["label_mass"] == without["label_mass"]
    own = [row["log_likelihood"] for row in without["probabilities"]]
    assert [row["log_likelihood"] for row in with_map["probabilities"]] == own


async def test_another_question_than_the_checkpoints_own_is_not_called_calibrated(calibrated: Service) -> None:
    answer = await classify(calibrated, question="Which is it?")
    assert answer["calibration"] is None
    weights = [math.exp(row["log_likelihood"]) for row in answer["probabilities"]]
    assert [row["probability"] for row in answer["probabilities"]] == pytest.approx([w / sum(weights) for w in weights])


async def test_only_the_set_of_labels_that_was_fitted_is_called_calibrated(calibrated: Service) -> None:
    assert (await classify(calibrated, labels=LABELS[::-1]))["calibration"] is not None
    for labels in (LABELS[:2], [*LABELS, "PET"], ["ct", "MRI", "X-ray"]):
        assert (await classify(calibrated, labels=labels))["calibration"] is None
    for fields in ({"mode": "choice"}, {"mode": "multi_label"}, {"length_normalized": True}):
        assert (await classify(calibrated, **fields))["calibration"] is None


_HARMFUL = {"n": 40, "ece_before": 0.02, "ece_after": 0.03, "nll_before": 1.0, "nll_after": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        {"bound_to": {"prompt_sha256": "0" * 64, "dtypes": ["float32"]}},
        {"bound_to": None},
        {"held_out": _HARMFUL},
    ],
    ids=["of another prompt", "of an earlier version", "that raised an error"],
)
async def test_a_map_that_does_not_hold_is_not_applied(
    running: ServiceFactory, checkpoint: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    directory = calibrate(
        checkpoint, tmp_path / "other", classification=CLASSIFICATION | change, answers=ANSWERS | change
    )
    async with running(model=directory) as service:
        assert (await classify(service))["calibration"] is None
        assert (await ask(service))["confidence"]["calibrated"] is False
        assert (await service.client.get("/v1/metadata")).json()["calibrated"] == []


async def test_a_whole_greedy_answer_has_a_calibrated_confidence(calibrated: Service, service: Service) -> None:
    answer, own = await ask(calibrated), await ask(service)
    assert answer["finish_reason"] == "stop"
    assert own["confidence"]["calibrated"] is False
    assert answer["confidence"]["calibrated"] is True
    assert answer["confidence"]["value"] == pytest.approx(0.25 + own["confidence"]["value"] / 2)


@pytest.mark.parametrize("fields", [{"temperature": 0.7, "seed": 1}, {"max_tokens": 1}], ids=["sampled", "cut"])
async def test_sampled_and_cut_answers_keep_the_models_own_confidence(
    calibrated: Service, service: Service, fields: dict[str, Any]
) -> None:
    answer, own = await ask(calibrated, **fields), await ask(service, **fields)
    assert answer["confidence"] == own["confidence"]
    assert answer["confidence"]["calibrated"] is False


async def test_a_kind_without_a_map_is_not_called_calibrated(
    running: ServiceFactory, checkpoint: Path, tmp_path: Path
) -> None:
    async with running(model=calibrate(checkpoint, tmp_path / "half", answers=ANSWERS)) as service:
        assert (await classify(service))["calibration"] is None
        assert (await ask(service))["confidence"]["calibrated"] is True


@pytest.mark.parametrize(
    "content",
    ['{"format_version": 1, "weights_sha256": "' + "0" * 64 + '"}', '{"format_version": 2}', "no JSON"],
    ids=["of other weights", "of a later version", "damaged"],
)
async def test_a_calibration_that_does_not_belong_ends_the_start(
    checkpoint: Path, engine: FakeEngine, tmp_path: Path, content: str
) -> None:
    directory = calibrate(checkpoint, tmp_path / "wrong")
    (directory / "calibration.json").write_text(content)
    failed: list[str] = []
    app = create_app(Settings(model=directory, insecure=True), engine, on_failure=lambda: failed.append("failed"))
    async with LifespanManager(app):
        await app.state.medmoe.starting
        assert app.state.medmoe.readiness.phase is Phase.FAILED
    assert failed == ["failed"]


async def test_an_evaluation_through_the_service_scores_what_the_service_says(
    calibrated: Service, tmp_path: Path
) -> None:
    image = tmp_path / "scan.png"
    image.write_bytes(image_bytes())
    sample = Sample(id="s", dataset="d", image=image, split="test", answer="CT", labels=tuple(LABELS))
    client = AsyncClient("http://service", transport=httpx.ASGITransport(app=calibrated.app))
    predictor = ServerPredictor(client)
    (found,) = [one async for one in predictor.stream([sample])]
    answer = await classify(calibrated)
    assert found.text == answer["label"]
    assert found.probabilities == {row["label"]: row["probability"] for row in answer["probabilities"]}
    assert predictor.identity["confidences"] == "calibrated by the service"
