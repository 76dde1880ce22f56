"""Answers that are too unsure say so; and what an answer says about itself is enough to get it again."""

import json
from pathlib import Path
from typing import Any

import pytest

from medmoe.server.schemas.vqa import VQAFields
from tests.integration.conftest import Service, ServiceFactory, base64_image
from tests.integration.training.test_calibration import ANSWERS, CLASSIFICATION, calibrate

VQA, CLASSIFY = "/v1/vqa", "/v1/classify"
LABELS = ["CT", "MRI", "X-ray"]


async def ask(service: Service, path: str, **fields: Any) -> dict[str, Any]:
    asked = {"question": "Is there a fracture?"} if path == VQA else {"labels": LABELS}
    response = await service.client.post(path, json={"image": base64_image(), **asked, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def sureness(answer: dict[str, Any]) -> float:
    if "confidence" in answer:
        return float(answer["confidence"]["value"])
    rows = [row["probability"] for row in answer["probabilities"]]
    return min(max(p, 1 - p) for p in rows) if answer["mode"] == "multi_label" else max(rows)


CASES = [
    (VQA, {}),
    (CLASSIFY, {}),
    (CLASSIFY, {"length_normalized": True}),
    (CLASSIFY, {"mode": "choice"}),
    (CLASSIFY, {"mode": "multi_label"}),
]


@pytest.mark.parametrize(("path", "fields"), CASES, ids=str)
async def test_an_answer_under_the_threshold_is_marked_and_given(
    service: Service, path: str, fields: dict[str, Any]
) -> None:
    plain = await ask(service, path, **fields)
    assert plain["abstained"] is False
    for threshold, marked in ((sureness(plain), False), (min(1.0, sureness(plain) + 1e-6), True), (0, False)):
        answer = await ask(service, path, **fields, min_confidence=threshold)
        assert answer["abstained"] is marked
        assert answer["provenance"]["min_confidence"] == threshold
        for name in ("answer", "label", "labels"):
            assert answer.get(name) == plain.get(name)


@pytest.mark.parametrize(("path", "fields"), CASES, ids=str)
async def test_the_deployments_threshold_holds_where_a_request_has_none(
    running: ServiceFactory, path: str, fields: dict[str, Any]
) -> None:
    async with running(min_confidence=1.0) as service:
        assert (await ask(service, path, **fields))["abstained"] is True
        assert (await ask(service, path, **fields, min_confidence=0))["abstained"] is False


async def test_each_label_of_a_multi_label_answer_has_its_own_mark(service: Service) -> None:
    plain = await ask(service, CLASSIFY, mode="multi_label")
    sure = sorted(max(row["probability"], 1 - row["probability"]) for row in plain["probabilities"])
    answer = await ask(service, CLASSIFY, mode="multi_label", min_confidence=(sure[0] + sure[1]) / 2)
    assert [row["abstained"] for row in answer["probabilities"]].count(True) == 1
    assert answer["abstained"] is True


async def test_a_stream_says_so_at_its_end(service: Service) -> None:
    body = {"image": base64_image(), "question": "What?", "stream": True, "min_confidence": 1}
    events = (await service.client.post(VQA, json=body)).text.strip().split("\n\n")
    assert json.loads(events[-2].removeprefix("data: "))["abstained"] is True
    assert "delta" in events[0]


async def test_the_threshold_looks_at_calibrated_confidence(
    running: ServiceFactory, service: Service, checkpoint: Path, tmp_path: Path
) -> None:
    directory = calibrate(checkpoint, tmp_path / "calibrated", classification=CLASSIFICATION, answers=ANSWERS)
    async with running(model=directory) as calibrated:
        for path in (VQA, CLASSIFY):
            own, mapped = sureness(await ask(service, path)), sureness(await ask(calibrated, path))
            assert own != pytest.approx(mapped)
            between = (own + mapped) / 2
            assert (await ask(service, path, min_confidence=between))["abstained"] is (own < between)
            assert (await ask(calibrated, path, min_confidence=between))["abstained"] is (mapped < between)


@pytest.mark.parametrize(
    "fields",
    [{"length_normalized": True}, {"contextual_calibration": True}, {"mode": "choice"}, {"mode": "multi_label"}],
    ids=str,
)
async def test_a_calibration_is_not_stretched_over_another_mode(
    running: ServiceFactory, service: Service, checkpoint: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    directory = calibrate(checkpoint, tmp_path / "calibrated", classification=CLASSIFICATION)
    async with running(model=directory) as calibrated:
        answer, own = await ask(calibrated, CLASSIFY, **fields), await ask(service, CLASSIFY, **fields)
        assert answer["calibration"] is None
        assert answer["probabilities"] == own["probabilities"]
        assert (await ask(calibrated, CLASSIFY))["calibration"] is not None


@pytest.mark.parametrize(
    "fields", [{}, {"temperature": 1.5}, {"temperature": 1.5, "seed": 7, "max_tokens": 3}, {"min_confidence": 0.9}]
)
async def test_an_answer_can_be_had_again_from_its_provenance(running: ServiceFactory, fields: dict[str, Any]) -> None:
    async with running(default_max_tokens=5, min_confidence=0.5) as service:
        first = await ask(service, VQA, **fields)
    again = {name: value for name, value in first["provenance"].items() if name in VQAFields.model_fields}
    assert {"temperature", "seed", "max_tokens", "min_confidence", "allow_unlike_training"} == set(again)
    # Elsewhere: what the first deployment chose for the request must not matter.
    async with running() as service:
        second = await ask(service, VQA, **again)
    for name in ("answer", "finish_reason", "confidence", "abstained", "usage", "provenance"):
        assert second[name] == first[name]


@pytest.mark.parametrize(
    "fields",
    [{}, {"length_normalized": True}, {"contextual_calibration": True}, {"mode": "choice"}, {"mode": "multi_label"}],
)
async def test_a_classification_can_be_had_again_from_its_provenance(
    running: ServiceFactory, fields: dict[str, Any]
) -> None:
    async with running(max_permutations=2, min_confidence=0.5) as service:
        first = await ask(service, CLASSIFY, **fields)
    known = ("length_normalized", "contextual_calibration", "permutations", "min_confidence")
    again = {name: first["provenance"][name] for name in known if name in first["provenance"]}
    async with running() as service:
        second = await ask(service, CLASSIFY, mode=first["mode"], **again)
    for name in first.keys() - {"id", "timings"}:
        assert second[name] == first[name]
