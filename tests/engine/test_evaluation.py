"""One evaluation, twice: in process on the reference model, and over HTTP on the real engine. The numbers are equal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmoe.client import AsyncClient
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.contextual_predictions import contextual
from medmoe.training.evaluation.predict.predictors import LocalPredictor
from medmoe.training.evaluation.predict.server_predictor import ServerPredictor
from medmoe.training.evaluation.prediction import Prediction
from medmoe.training.evaluation.report.report import build_report
from tests.engine.conftest import Served

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

LABELS = ("MRI", "CT", "X-ray", "CT lung")
TOLERANCE = 1e-4
MAX_TOKENS = 6


def made_up(folder: Path) -> list[Sample]:
    """Eight images of different shapes; every second one is a classification."""
    samples = []
    for number in range(8):
        noise = np.random.default_rng(number)
        size = noise.integers(20, 60, 2)
        image = folder / f"{number}.png"
        Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8)).save(image)
        given: dict[str, Any] = {"labels": LABELS} if number % 2 else {"question": f"Is there a fracture in {number}?"}
        given |= {} if number % 2 else {"answer_type": "closed"}
        samples.append(
            Sample(id=f"s{number}", dataset="d", image=image, split="test", answer="CT", modality="CT", **given)
        )
    return samples


def whole(prediction: Prediction) -> str:
    """A random model is cut inside characters, too; the engine keeps back what is not a character yet."""
    return prediction.text.rstrip("\N{REPLACEMENT CHARACTER}") if prediction.cut else prediction.text


async def test_service_and_process_calibrate_labels_contextually_alike(served: Served, tmp_path: Path) -> None:
    samples = [sample for sample in made_up(tmp_path) if sample.kind == "classification"]
    local = LocalPredictor.from_checkpoint(served.checkpoint, batch_size=4)
    size = local.prompt.config.vision_config.image_size
    own = {prediction.id: prediction for prediction in local.predict(samples)}
    (tmp_path / "free").mkdir()
    here = contextual(local.predict, folder=tmp_path / "free", size=size)(samples)
    remote = ServerPredictor(AsyncClient("http://test", transport=served.transport), contextual_calibration=True)
    there = {prediction.id: prediction async for prediction in remote.stream(samples)}
    for expected in here:
        assert expected.probabilities is not None
        assert there[expected.id].probabilities == pytest.approx(dict(expected.probabilities), abs=TOLERANCE)
        assert expected.probabilities != pytest.approx(own[expected.id].probabilities, abs=10 * TOLERANCE)


async def test_service_and_process_give_one_report(served: Served, tmp_path: Path) -> None:
    samples = made_up(tmp_path)
    local = LocalPredictor.from_checkpoint(served.checkpoint, max_tokens=MAX_TOKENS, batch_size=4)
    here = {prediction.id: prediction for prediction in local.predict(samples)}
    remote = ServerPredictor(
        AsyncClient("http://test", transport=served.transport), max_tokens=MAX_TOKENS, concurrency=4
    )
    there = {prediction.id: prediction async for prediction in remote.stream(samples)}
    assert len({prediction.text for prediction in here.values()}) > 4
    for id_, expected in here.items():
        found = there[id_]
        assert (whole(found), found.cut, found.routing) == (whole(expected), expected.cut, expected.routing)
        assert found.confidence == pytest.approx(expected.confidence, abs=TOLERANCE)
        if expected.probabilities is not None:
            assert found.probabilities == pytest.approx(dict(expected.probabilities), abs=TOLERANCE)
    first, second = (build_report(samples, predictions=predictions).sections for predictions in (here, there))
    for expected_section, section in zip(first, second, strict=True):
        for metric, score in expected_section.scores.items():
            assert section.scores[metric].value == pytest.approx(score.value, abs=1e-3), metric
