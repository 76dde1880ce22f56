"""Windowed router statistics and drift, from what `medmoe eval` writes to what an operator reads."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from medmoe.model.files.digest import file_sha256
from medmoe.model.files.routing_reference import RoutingReference
from medmoe.server.admission.readiness import Phase
from medmoe.training.evaluation.__main__ import app as evaluate
from tests.integration.conftest import Service, ServiceFactory, check, image_bytes
from tests.support.checkpoints.tiny import save_tiny_checkpoint


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with weights and the routing reference that the evaluation wrote beside them."""
    root = tmp_path_factory.mktemp("evaluated")
    (root / "data" / "organs").mkdir(parents=True)
    records = []
    for number, modality in enumerate(("CT", "CT", "MRI")):
        name = f"{number}.png"
        Image.new("L", (40, 24), 60 * number).save(root / "data" / "organs" / name)
        fields = {"task": "vqa", "split": "test", "question": "What is shown?", "answer": "CT", "answer_type": "closed"}
        records.append(fields | {"id": f"organs/{number}", "image": name, "modality": modality})
    (root / "data" / "organs" / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    checkpoint = save_tiny_checkpoint(root / "tiny")
    arguments = [str(checkpoint), "--data", str(root / "data"), "--dataset", "organs", "--max-tokens", "2"]
    found = CliRunner().invoke(evaluate, [*arguments, "--routing-reference"])
    assert found.exit_code == 0, found.output
    return checkpoint


@pytest.fixture
async def referring(running: ServiceFactory, evaluated: Path) -> AsyncIterator[Service]:
    async with running(model=evaluated) as service:
        yield service


async def ask(service: Service, modality: str | None = None) -> dict[str, Any]:
    data = {"question": "What is shown?", "include_routing": "true"} | ({"modality": modality} if modality else {})
    response = await service.client.post("/v1/vqa", data=data, files={"image": ("x", image_bytes(), "image/png")})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def stats(service: Service, **query: Any) -> dict[str, Any]:
    response = await service.client.get("/v1/router/stats", params=query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def gauges(service: Service) -> dict[tuple[str, str], float]:
    text = (await service.client.get("/metrics")).text
    return {
        (sample.name, sample.labels["layer"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("medmoe_routing_drift")
    }


async def test_drift_is_told_by_layer_kind_and_modality(referring: Service, evaluated: Path) -> None:
    assert {layer["divergence"] for layer in (await stats(referring))["drift"]["layers"]} == {None}
    assert await gauges(referring) == {
        ("medmoe_routing_drift_tokens", "0"): 0,
        ("medmoe_routing_drift_tokens", "2"): 0,
    }
    told = [(await ask(referring, modality))["routing"] for modality in ("CT", "MRI", "ultrasound", None)]
    for query in ({}, {"window": 60}):
        drift = (await stats(referring, **query))["drift"]
        assert (drift["datasets"], drift["split"], drift["reference_samples"]) == (["organs"], "test", 3)
        for index, layer in enumerate(drift["layers"]):
            expected = [sum(sum(one["layers"][index][kind]) for one in told) for kind in ("image", "question")]
            assert [layer["by_kind"][kind]["tokens"] for kind in ("image", "question")] == expected
            assert layer["tokens"] == sum(expected)
            assert 0 < layer["divergence"] <= 1
            # The reference knows no ultrasound.
            assert set(layer["by_modality"]) == {"CT", "MRI"}
    shown = await gauges(referring)
    for layer in drift["layers"]:
        number = str(layer["layer"])
        assert shown["medmoe_routing_drift", number] == pytest.approx(layer["divergence"])
        assert shown["medmoe_routing_drift_tokens", number] == layer["tokens"]


async def test_traffic_that_is_routed_as_the_reference_says_does_not_drift(
    running: ServiceFactory, evaluated: Path, tmp_path: Path
) -> None:
    """The reference made from the fake engine's own routing of the same question."""
    async with running(model=evaluated) as service:
        routing = (await ask(service))["routing"]
    layers = [
        {
            "layer": layer["layer"],
            "by_kind": {kind: layer[kind] for kind in ("image", "question")},
            "by_modality": {},
        }
        for layer in routing["layers"]
    ]
    directory = shutil.copytree(evaluated, tmp_path / "fitting")
    content = json.loads((evaluated / "routing_reference.json").read_text()) | {"layers": layers}
    (directory / "routing_reference.json").write_text(json.dumps(content))
    async with running(model=directory) as service:
        await ask(service)
        for layer in (await stats(service))["drift"]["layers"]:
            assert layer["divergence"] == pytest.approx(0, abs=1e-9)


async def test_without_a_reference_drift_is_null_and_no_series(service: Service) -> None:
    await ask(service)
    assert (await stats(service))["drift"] is None
    assert await gauges(service) == {}


async def test_a_reference_of_other_weights_stops_the_start(
    running: ServiceFactory, evaluated: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "tokenizer.json", "routing_reference.json"):
        (tmp_path / name).write_bytes((evaluated / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    digest = file_sha256(tmp_path / "model.safetensors")
    assert RoutingReference.read(tmp_path).weights_sha256 != digest
    async with running(model=tmp_path, wait=False) as service:
        assert service.state.starting is not None
        await service.state.starting
        assert service.state.readiness.phase is Phase.FAILED


async def test_modalities_are_counted_and_never_reach_the_model(
    service: Service, classify_body: dict[str, Any]
) -> None:
    with_one, without = await ask(service, "ct"), await ask(service)
    assert with_one["answer"] == without["answer"]
    assert with_one["routing"] == without["routing"]
    response = await service.client.post("/v1/classify", json=classify_body | {"modality": "OCT"})
    assert response.status_code == 200
    found = await stats(service)
    assert set(found["by_modality"]) == {"CT", "OCT", "unstated"}
    for index, layer in enumerate(found["overall"]):
        assert layer["tokens"] == sum(loads[index]["tokens"] for loads in found["by_modality"].values())


@pytest.mark.parametrize("route", ["/v1/vqa", "/v1/classify"])
async def test_an_unknown_modality_is_422_and_nothing_is_generated(
    service: Service, vqa_body: dict[str, Any], classify_body: dict[str, Any], route: str
) -> None:
    body = (vqa_body if route == "/v1/vqa" else classify_body) | {"modality": "Jane Doe"}
    before = service.engine.started
    response = await service.client.post(route, json=body)
    check(response, 422, "invalid_field", "modality")
    assert "fundus photography" in response.json()["error"]["message"]
    assert service.engine.started == before


@pytest.mark.parametrize("window", ["9", "3601", "-1", "x", "1e3", "nan"])
async def test_a_window_out_of_range_is_422(service: Service, window: str) -> None:
    check(await service.client.get("/v1/router/stats", params={"window": window}), 422, "invalid_field", "window")
