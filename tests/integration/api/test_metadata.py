"""What the service says about itself and about the checkpoint."""

import hashlib
from pathlib import Path
from typing import Any

from tests.integration.conftest import Service, ServiceFactory, check


async def test_metadata_names_what_an_answer_depends_on(
    running: ServiceFactory, checkpoint: Path, vqa_body: dict[str, Any]
) -> None:
    async with running(engine="fake") as service:
        found = (await service.client.get("/v1/metadata")).json()
        answer = (await service.client.post("/v1/vqa", json=vqa_body)).json()
    assert found["config_sha256"] == hashlib.sha256((checkpoint / "config.json").read_bytes()).hexdigest()
    assert found["model"] == answer["model"]
    assert found["weights_sha256"] == answer["provenance"]["weights_sha256"]
    assert (found["engine"], found["engine_version"], found["calibrated"]) == ("fake", None, [])
    assert found["service"] == service.app.version
    assert "Not a medical device" in found["intended_use"]


async def test_the_licence_and_the_card_are_the_checkpoints(
    running: ServiceFactory, checkpoint: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "with-card"
    directory.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (directory / name).write_bytes((checkpoint / name).read_bytes())
    card = "---\nlicense: cc0-1.0\n---\n\n# Größe\n"
    (directory / "README.md").write_text(card, encoding="utf-8")
    async with running(model=directory) as service:
        assert (await service.client.get("/v1/metadata")).json()["licence"] == "cc0-1.0"
        sent = await service.client.get("/v1/model-card")
    assert sent.text == card
    assert sent.headers["content-type"] == "text/markdown; charset=utf-8"


async def test_a_checkpoint_without_a_card_says_so(service: Service) -> None:
    check(await service.client.get("/v1/model-card"), 404, "no_model_card")
    assert (await service.client.get("/v1/metadata")).json()["licence"].startswith("unknown")
