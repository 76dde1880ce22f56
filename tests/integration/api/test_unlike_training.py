"""An answer about an image that is unlike the training images says so, and promises nothing."""

from typing import Any

import httpx
import pytest

from medmoe.model.unlike_training.reference import FalseAlarms, ReferenceImages, TrainingReference
from tests.integration.api.test_abstention import CASES, CLASSIFY, VQA, ask
from tests.integration.conftest import Service, ServiceFactory, base64_image
from tests.integration.training.test_calibration import ANSWERS, CLASSIFICATION, calibrate

REFERENCE = TrainingReference(
    tower_sha256="0" * 64,
    neighbours=5,
    threshold=2.0,
    references=ReferenceImages(datasets=("slake",), images=100),
    false_alarms=FalseAlarms(split="val", images=100, rate=0.03),
)
MODES = [*CASES, (CLASSIFY, {"question": "Which?"})]


@pytest.fixture
def referenced(service: Service) -> Service:
    service.state.active.checkpoint.training_reference = REFERENCE
    return service


@pytest.mark.parametrize(("path", "fields"), MODES, ids=str)
async def test_a_flagged_image_is_abstained_on_unless_the_request_allows_it(
    referenced: Service, path: str, fields: dict[str, Any]
) -> None:
    referenced.engine.unlike_training = 2.5
    answer = await ask(referenced, path, **fields)
    assert answer["unlike_training"] == {"score": 2.5, "threshold": 2.0, "flagged": True}
    assert answer["abstained"] is True
    allowed = await ask(referenced, path, **fields, allow_unlike_training=True)
    assert allowed["unlike_training"]["flagged"] is True
    assert allowed["abstained"] is False
    assert allowed["provenance"]["allow_unlike_training"] is True


@pytest.mark.parametrize(("path", "fields"), MODES, ids=str)
async def test_an_image_like_training_is_answered_as_ever(
    referenced: Service, path: str, fields: dict[str, Any]
) -> None:
    referenced.engine.unlike_training = 1.5
    answer = await ask(referenced, path, **fields)
    assert answer["unlike_training"] == {"score": 1.5, "threshold": 2.0, "flagged": False}
    assert answer["abstained"] is False


async def test_a_checkpoint_without_a_reference_says_nothing(service: Service) -> None:
    service.engine.unlike_training = 2.5
    for path in (VQA, CLASSIFY):
        answer = await ask(service, path)
        assert (answer["unlike_training"], answer["abstained"]) == (None, False)
    assert 'medmoe_unlike_training_total{flagged="true"} 0.0' in (await service.client.get("/metrics")).text


async def test_what_is_flagged_is_never_called_calibrated(
    running: ServiceFactory, tmp_path: Any, checkpoint: Any
) -> None:
    directory = calibrate(checkpoint, tmp_path / "calibrated", classification=CLASSIFICATION, answers=ANSWERS)
    async with running(model=directory) as service:
        service.state.active.checkpoint.training_reference = REFERENCE
        for score, calibrated in ((1.5, True), (2.5, False)):
            service.engine.unlike_training = score
            asked = await ask(service, VQA, allow_unlike_training=True)
            assert asked["confidence"]["calibrated"] is calibrated
            classified = await ask(service, CLASSIFY, allow_unlike_training=True)
            assert (classified["calibration"] is not None) is calibrated


async def test_chat_and_the_metrics_tell_it_too(referenced: Service) -> None:
    referenced.engine.unlike_training = 2.5
    url = {"url": f"data:image/png;base64,{base64_image()}"}
    content = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": url}]
    for fields, abstained in (({}, True), ({"allow_unlike_training": True}, False)):
        response: httpx.Response = await referenced.client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": content}], **fields}
        )
        details = response.json()["medmoe"]
        assert (details["unlike_training"]["flagged"], details["abstained"]) == (True, abstained)
        assert details["provenance"]["allow_unlike_training"] is not abstained
    referenced.engine.unlike_training = 0.5
    await ask(referenced, CLASSIFY)
    metrics = (await referenced.client.get("/metrics")).text
    assert 'medmoe_unlike_training_total{flagged="true"} 2.0' in metrics
    assert 'medmoe_unlike_training_total{flagged="false"} 1.0' in metrics
