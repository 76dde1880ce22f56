"""Prediction sets are given where the checkpoint has them, and refused elsewhere; a label mass near 0 abstains."""

from pathlib import Path
from typing import Any

import pytest

from medmoe.model.files.calibration import Calibration
from medmoe.model.files.calibration_binding import BoundTo, FittedOn
from medmoe.model.files.prediction_sets import PredictionSets
from tests.integration.api.test_unlike_training import REFERENCE
from tests.integration.conftest import Service, ServiceFactory, base64_image

LABELS = ["CT", "MRI", "X-ray"]


@pytest.fixture
def with_sets(service: Service) -> Service:
    sets = PredictionSets(
        labels=tuple(sorted(LABELS)),
        bound_to=BoundTo(prompt_sha256=service.state.active.checkpoint.prompt.sha256, dtypes=("float32",)),
        fitted_on=FittedOn(datasets=("kinds",), split="val", n=60),
        scores=dict.fromkeys(LABELS, (0.2,) * 19 + (0.9999,)),
    )
    service.state.active.checkpoint.calibration = Calibration(weights_sha256="0" * 64, prediction_sets=(sets,))
    return service


async def classify(service: Service, status: int = 200, **fields: Any) -> dict[str, Any]:
    response = await service.client.post("/v1/classify", json={"image": base64_image(), "labels": LABELS, **fields})
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_a_set_holds_what_the_threshold_lets_in(with_sets: Service) -> None:
    assert (await classify(with_sets))["prediction_set"] is None
    narrow = await classify(with_sets, alpha=0.2)
    likely = [row["label"] for row in narrow["probabilities"] if row["probability"] >= 0.8] or [narrow["label"]]
    assert narrow["prediction_set"] == {
        "labels": likely, "alpha": 0.2, "kind": "class", "n": 60, "datasets": ["kinds"], "split": "val",
    }  # fmt: skip
    assert narrow["abstained"] is False
    # Too few of each class for so small an alpha, and of all together too: the set is everything, and says nothing.
    wide = await classify(with_sets, alpha=0.001)
    assert (wide["prediction_set"]["labels"], wide["prediction_set"]["kind"]) == (LABELS, "marginal")
    assert wide["abstained"] is True


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": ["CT", "MRI"]},
        {"mode": "choice"},
        {"question": "Which?"},
        {"length_normalized": True},
        {"contextual_calibration": True},
    ],
    ids=str,
)
async def test_for_anything_else_it_is_refused(with_sets: Service, fields: dict[str, Any]) -> None:
    error = (await classify(with_sets, 422, alpha=0.1, **fields))["error"]
    assert error["param"] == "alpha"


async def test_nothing_holds_for_an_image_that_is_unlike_training(with_sets: Service) -> None:
    with_sets.state.active.checkpoint.training_reference = REFERENCE
    with_sets.engine.unlike_training = 2.5
    assert (await classify(with_sets, alpha=0.2))["prediction_set"] is None


@pytest.mark.parametrize("mode", ["likelihood", "choice", "multi_label"])
async def test_labels_that_the_model_would_not_say_are_abstained_on(
    running: ServiceFactory, checkpoint: Path, mode: str
) -> None:
    async with running(min_label_mass=0.5) as service:
        answer = await classify(service, mode=mode)
        assert answer["abstained"] is True
        assert answer["provenance"]["min_label_mass"] == 0.5
        assert (await classify(service, mode=mode, min_label_mass=0))["abstained"] is False
