"""The change of the checkpoint without a stop: load, compare, activate, roll back, retire."""

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from safetensors.numpy import save_file

from medmoe.model.config import MedMoEConfig
from medmoe.model.files.digest import file_sha256
from medmoe.model.prompt import Prompt
from medmoe.server.auth.key_file import new_key
from medmoe.server.engine.base import EngineError
from medmoe.server.engine.deployment.rollout_errors import InsufficientMemory
from medmoe.server.engine.fake_engine import FakeEngine
from medmoe.server.errors import DeploymentError
from medmoe.server.rollout.memory import check_second_engine
from medmoe.server.settings import Settings
from tests.integration.conftest import Service, ServiceFactory, base64_image, check, until

PATH = "/admin/checkpoint"


class OtherAnswers(FakeEngine):
    """A fake engine whose answers depend on its checkpoint."""

    salt = ""

    def log_probabilities(self, image_id: str, ids: Any) -> np.ndarray:
        return super().log_probabilities(self.salt + image_id, ids)


class Builder:
    """Builds fake engines by the name of their checkpoint, and keeps them."""

    def __init__(self) -> None:
        self.built: dict[str, OtherAnswers] = {}
        self.failure: Exception | None = None

    def __call__(self, settings: Settings) -> FakeEngine:
        if self.failure is not None:
            raise self.failure
        config = MedMoEConfig.from_directory(settings.model)
        engine = OtherAnswers(config, Prompt.from_directory(settings.model, config))
        engine.salt = settings.model.name
        self.built[settings.model.name] = engine
        return engine


@pytest.fixture
def checkpoints(tmp_path: Path, checkpoint: Path) -> Path:
    """Three checkpoints of one name with different weights, and one of another name."""
    root = tmp_path / "checkpoints"
    for number, name in enumerate(("old", "new", "renamed")):
        shutil.copytree(checkpoint, root / name)
        save_file({"weight": np.full(4, number, dtype=np.float32)}, root / name / "model.safetensors")
    config = json.loads((root / "renamed" / "config.json").read_text())
    (root / "renamed" / "config.json").write_text(json.dumps(config | {"name": "another-name"}))
    return root


@pytest.fixture
def builder() -> Builder:
    return Builder()


Serving = Any


@pytest.fixture
def serving(running: ServiceFactory, checkpoints: Path, builder: Builder) -> Serving:
    @asynccontextmanager
    async def factory(**settings: Any) -> AsyncIterator[Service]:
        chosen = {"model": checkpoints / "old", "checkpoints_dir": checkpoints, "build": builder}
        async with running(**chosen | {"engine_restart_delay_seconds": 0.0} | settings) as service:
            yield service

    return factory


async def loaded(service: Service, name: str = "new", **fields: Any) -> dict[str, Any]:
    response = await service.client.post(PATH, json={"name": name} | fields)
    assert response.status_code == 202, response.text
    return await settled(service)


async def settled(service: Service) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            status: dict[str, Any] = (await service.client.get(PATH)).json()
            compared = status["comparison"]
            if status["standby"]["state"] != "loading" and not (
                compared and compared["compared"] + len(compared["failed"]) < compared["questions"]
            ):
                return status
            await asyncio.sleep(0.01)


async def ask(service: Service, **fields: Any) -> httpx.Response:
    return await service.client.post("/v1/vqa", json={"image": base64_image(), "question": "Where?"} | fields)


async def weights(service: Service, **fields: Any) -> str:
    response = await ask(service, **fields)
    assert response.status_code == 200, response.text
    return str(response.json()["provenance"]["weights_sha256"])


def sha(checkpoints: Path, name: str) -> str:
    return file_sha256(checkpoints / name / "model.safetensors")


async def test_a_switch_under_load_loses_no_request(
    serving: Serving, checkpoints: Path, builder: Builder, classify_body: dict[str, Any]
) -> None:
    old, new = sha(checkpoints, "old"), sha(checkpoints, "new")
    async with serving(max_concurrent=4, max_queued=64) as service:
        service.engine.delay = 0.002
        answers: list[tuple[int, int, str]] = []
        clock = 0
        stop = asyncio.Event()

        async def client(number: int) -> None:
            nonlocal clock
            while not stop.is_set():
                clock += 1
                begun = clock
                if number % 2:
                    response = await service.client.post("/v1/classify", json=classify_body)
                else:
                    response = await ask(service, question=f"Question {number}?")
                clock += 1
                answers.append((begun, response.status_code, response.json()["provenance"]["weights_sha256"]))

        clients = [asyncio.create_task(client(number)) for number in range(6)]
        await until(lambda: len(answers) > 6)
        assert (await loaded(service))["standby"]["state"] == "ready"
        builder.built["new"].delay = 0.002
        assert {sha256 for *_, sha256 in answers} == {old}
        assert service.state.active.requests > 0
        activated = (await service.client.post(f"{PATH}/activate")).json()
        switched = clock
        assert activated["active"]["weights_sha256"] == new
        # What had begun ends with the old weights.
        assert activated["standby"]["requests"] > 0
        await until(lambda: sum(begun > switched for begun, *_ in answers) > 20)
        rolled_back = (await service.client.post(f"{PATH}/rollback")).json()
        back = clock
        assert rolled_back["active"]["weights_sha256"] == old
        await until(lambda: sum(begun > back for begun, *_ in answers) > 8)
        # The engine with requests inside is closed only when they have ended.
        assert (await service.client.delete(PATH)).status_code == 200
        stop.set()
        await asyncio.gather(*clients)
        assert {status for _, status, _ in answers} == {200}
        assert {sha256 for begun, _, sha256 in answers if begun <= switched} <= {old, new}
        assert {sha256 for begun, _, sha256 in answers if switched < begun <= back - 12} == {new}
        assert {sha256 for begun, _, sha256 in answers if begun > back} == {old}
        assert service.state.active.requests == 0
        assert service.state.admission.in_flight == 0


async def test_a_request_that_began_ends_with_the_weights_that_it_began_with(
    serving: Serving, checkpoints: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("ab" * 32)
    trail = tmp_path / "trail"
    async with serving(audit_dir=trail, audit_key=tmp_path / "key") as service:
        await loaded(service)
        service.engine.delay = 0.05
        inside = asyncio.create_task(weights(service))
        await until(lambda: service.engine.started > service.engine.finished + service.engine.aborted)
        await service.client.post(f"{PATH}/activate")
        assert await weights(service) == sha(checkpoints, "new")
        assert (await service.client.get("/v1/sources")).status_code == 200
        assert service.state.audit is not None
        service.state.audit._writer._close_segment()
        retiring = asyncio.create_task(service.client.delete(PATH))
        assert await inside == sha(checkpoints, "old")
        assert (await retiring).json()["standby"] is None
        assert await weights(service) == sha(checkpoints, "new")
    records = [json.loads(line) for file in sorted(trail.glob("*.jsonl")) for line in file.read_text().splitlines()]
    assert [one["action"] for one in records if one["event"] == "checkpoint"] == ["load", "activate", "retire"]
    answered = [one["weights_sha256"] for one in records if one.get("route") == "/v1/vqa"]
    assert sorted(answered) == sorted([sha(checkpoints, "old"), *2 * [sha(checkpoints, "new")]])
    # What no model answers, and what the trail goes on with after a failure.
    others = {one.get("route", one["event"]): one["weights_sha256"] for one in records if "weights_sha256" in one}
    assert (others["start"], others["/v1/sources"], others["resume"]) == (
        sha(checkpoints, "old"),
        sha(checkpoints, "new"),
        sha(checkpoints, "new"),
    )


async def test_requests_choose_by_model(serving: Serving, checkpoints: Path) -> None:
    old, new = sha(checkpoints, "old"), sha(checkpoints, "new")
    async with serving() as service:
        name = service.state.active.name
        assert (await loaded(service))["standby"]["pinned_model"] == f"{name}@{new[:12]}"
        listed = [one["id"] for one in (await service.client.get("/v1/models")).json()["data"]]
        assert listed == [name, f"{name}@{new[:12]}"]
        assert await weights(service) == await weights(service, model=name) == old
        assert await weights(service, model=f"{name}@{old[:12]}") == old
        assert await weights(service, model=f"{name}@{new[:12]}") == new
        chat = {
            "model": f"{name}@{new[:12]}",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64_image()}"}},
                        {"type": "text", "text": "Where?"},
                    ],
                }
            ],
        }
        answer = (await service.client.post("/v1/chat/completions", json=chat)).json()
        assert answer["medmoe"]["provenance"]["weights_sha256"] == new
        metadata = await service.client.get("/v1/metadata", params={"model": f"{name}@{new[:12]}"})
        assert metadata.json()["weights_sha256"] == new
        refused = await ask(service, model=f"{name}@{new[:11]}x")
        check(refused, 404, "model_not_found", "model")
        assert refused.json()["error"]["message"].endswith(f"; did you mean {name}@{new[:12]}?")
        await service.client.post(f"{PATH}/activate")
        assert await weights(service, model=name) == new
        assert await weights(service, model=f"{name}@{old[:12]}") == old
        await service.client.delete(PATH)
        check(await ask(service, model=f"{name}@{old[:12]}"), 404, "model_not_found", "model")


async def test_each_model_has_its_own_statistics_and_caches(serving: Serving) -> None:
    async with serving() as service:
        await loaded(service, "renamed")
        for _ in range(2):
            await ask(service, model="another-name")
        await ask(service)
        for model, requests in (("another-name", 2), (service.state.active.name, 1)):
            stats = (await service.client.get("/v1/router/stats", params={"model": model})).json()
            assert (stats["model"], stats["requests"]) == (model, requests)
        text = (await service.client.get("/metrics")).text
        for model in service.state.models:
            assert (
                f'medmoe_expert_tokens_total{{expert="0",kind="image",layer="2",model="{model.pinned_name}"}}' in text
            )


async def test_the_comparison_counts_what_differs(serving: Serving, checkpoints: Path, builder: Builder) -> None:
    questions = [{"image": base64_image(shade=shade), "question": "Is it normal?"} for shade in range(0, 80, 20)]
    questions += [{"image": base64_image(shade=5), "labels": ["CT", "MRI"], "min_confidence": 0.6}]
    questions += [{"image": "AAAA", "question": "What is it?"}]
    (checkpoints / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    async with serving() as service:
        status = await loaded(service, questions="questions.jsonl")
        compared = status["comparison"]
        assert (compared["questions"], compared["compared"]) == (6, 5)
        assert compared["failed"] == [{"index": 5, "code": "unsupported_image"}]
        expected, differences, abstentions = [], [], 0
        pinned = status["standby"]["pinned_model"]
        for index, question in enumerate(questions[:5]):
            route = "/v1/classify" if "labels" in question else "/v1/vqa"
            first, second = [
                (await service.client.post(route, json=question | {"model": model})).json()
                for model in (service.state.active.name, pinned)
            ]
            said = "label" if "labels" in question else "answer"
            if first[said] != second[said]:
                expected.append(index)
            pairs = (
                [
                    (one["probability"], two["probability"])
                    for one, two in zip(first["probabilities"], second["probabilities"], strict=True)
                ]
                if "labels" in question
                else [(first["confidence"]["value"], second["confidence"]["value"])]
            )
            differences.append(float(np.mean([abs(one - two) for one, two in pairs])))
            abstentions += first["abstained"] != second["abstained"]
        assert compared["different"] == expected
        assert 0 < len(expected) <= 5
        assert compared["agreement"] == pytest.approx(1 - len(expected) / 5)
        assert compared["mean_probability_difference"] == pytest.approx(np.mean(differences))
        assert compared["changed_abstentions"] == abstentions
        # Neither the statistics nor the metrics count the comparison.
        assert (await service.client.get("/v1/router/stats")).json()["requests"] == 5
        # A question that fails is no agreement.
        one_of_two = {"questions": [await equal(service, pinned), questions[5]], "activate": True, "min_agreement": 0.9}
        status = await loaded(service, **one_of_two)
        assert (status["comparison"]["agreement"], status["standby"]["previous"]) == (1, False)
        await service.client.delete(PATH)
        # Too many differences: it stands by instead of becoming active.
        fields = {"questions": questions[:4], "activate": True, "min_agreement": 1.0}
        assert (await loaded(service, **fields))["standby"]["previous"] is False
        await service.client.delete(PATH)
        await service.client.post(PATH, json={"name": "new"} | fields | {"min_agreement": 0.0})
        await until(lambda: service.state.active.directory.name == "new")


async def equal(service: Service, pinned: str) -> dict[str, Any]:
    """Return a classification that the standby answers as the active model does; the standby is retired then."""
    try:
        for shade in range(100, 200):
            question = {"image": base64_image(shade=shade), "labels": ["CT", "MRI"]}
            sent = [question | {"model": model} for model in (service.state.active.name, pinned)]
            first, second = [(await service.client.post("/v1/classify", json=one)).json()["label"] for one in sent]
            if first == second:
                return question
        raise AssertionError("the models agree on nothing")
    finally:
        await service.client.delete(PATH)


async def test_a_failed_load_leaves_the_service_untouched(
    serving: Serving, checkpoints: Path, builder: Builder
) -> None:
    async with serving() as service:
        for failure, reason in (
            (DeploymentError("MEDMOE_DTYPE: no"), "MEDMOE_DTYPE: no"),
            (EngineError("the engine did not start: out of memory"), "the engine did not start: out of memory"),
            (RuntimeError("SECRET"), "the start failed: RuntimeError"),
        ):
            builder.failure = failure
            standby = (await loaded(service))["standby"]
            assert (standby["state"], standby["reason"]) == ("failed", reason)
            assert await weights(service) == sha(checkpoints, "old")
            check(await service.client.post(f"{PATH}/activate"), 409, "standby_conflict")
        builder.failure = None
        (checkpoints / "new" / "calibration.json").write_text("{")
        standby = (await loaded(service))["standby"]
        assert standby["state"] == "failed"
        assert "calibration.json" in standby["reason"]
        (checkpoints / "new" / "calibration.json").unlink()
        # A failed one makes room for the next.
        assert (await loaded(service))["standby"]["state"] == "ready"
        assert not service.fatal


def of_standby(service: Service) -> str:
    assert service.state.models.other is not None
    return service.state.models.other.pinned_name


async def restarts(service: Service, outcome: str) -> dict[str, float]:
    """Return by model how often engines were replaced."""
    text = (await service.client.get("/metrics")).text
    return {
        sample.labels["model"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "medmoe_engine_restarts_total" and sample.labels["outcome"] == outcome
    }


async def test_a_checkpoint_whose_engine_cannot_be_closed_is_retired(serving: Serving, builder: Builder) -> None:
    async def fails() -> None:
        raise RuntimeError("no such process")

    async with serving() as service:
        await loaded(service)
        builder.built["new"].close = fails  # type: ignore[method-assign]
        response = await service.client.delete(PATH)
        assert (response.status_code, response.json()["standby"]) == (200, None)
        assert (await loaded(service))["standby"]["state"] == "ready"


async def test_a_standby_with_the_same_weights_hides_no_series_of_the_active_model(
    serving: Serving, checkpoints: Path
) -> None:
    """As when the same weights are loaded with another calibration."""
    shutil.copytree(checkpoints / "old", checkpoints / "calibrated")
    async with serving() as service:
        await weights(service)
        before = await expert_tokens(service)
        await loaded(service, "calibrated")
        assert await expert_tokens(service) == before > 0


async def expert_tokens(service: Service) -> float:
    text = (await service.client.get("/metrics")).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "medmoe_expert_tokens_total"
    )


async def test_a_standby_that_dies_is_restarted_and_harms_nothing(
    serving: Serving, checkpoints: Path, builder: Builder
) -> None:
    async with serving(engine_restarts=2) as service:
        await loaded(service)
        first = builder.built["new"]
        first.dead = True
        await until(lambda: builder.built["new"] is not first)
        assert (await settled(service))["standby"]["state"] in ("ready", "restarting")
        await until(lambda: service.state.models.other is not None and service.state.models.other.is_ready)
        assert await weights(service) == sha(checkpoints, "old")
        assert await restarts(service, "restarted") == {service.state.active.pinned_name: 0, of_standby(service): 1}
        builder.failure = EngineError("gone")
        builder.built["new"].dead = True
        await until(lambda: service.state.models.other is not None and service.state.models.other.failure is not None)
        status = (await service.client.get(PATH)).json()
        assert (status["standby"]["state"], status["active"]["state"]) == ("failed", "ready")
        assert status["standby"]["reason"] == "the engine died, and could not be restarted"
        assert await weights(service) == sha(checkpoints, "old")
        failed = await restarts(service, "failed")
        assert failed[service.state.active.pinned_name] == 0
        assert failed[of_standby(service)] > 0
        assert not service.fatal


async def test_a_death_of_the_active_engine_ends_the_loading_of_another(
    serving: Serving, checkpoints: Path, builder: Builder
) -> None:
    async with serving() as service:
        never = asyncio.Event()

        async def hangs(self: FakeEngine) -> None:
            closing = asyncio.create_task(never.wait())
            await closing
            raise EngineError("closed")

        async def closes(self: FakeEngine) -> None:
            never.set()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OtherAnswers, "start", hangs)
            patch.setattr(OtherAnswers, "close", closes)
            await service.client.post(PATH, json={"name": "new"})
            await until(lambda: "new" in builder.built and service.state.models.other is not None)
            await asyncio.sleep(0.05)
            patch.undo()
            patch.setattr(OtherAnswers, "close", closes)
            service.engine.dead = True
            await until(lambda: "old" in builder.built and service.state.readiness.phase == "ready")
        status = (await service.client.get(PATH)).json()
        assert status["standby"]["state"] == "failed"
        assert await weights(service) == sha(checkpoints, "old")
        assert not service.fatal


@pytest.mark.parametrize("phase", ["draining", "restarting"])
async def test_a_checkpoint_whose_loading_has_begun_gives_way_to_a_drain_and_to_a_restart(
    serving: Serving, builder: Builder, phase: str
) -> None:
    go_on = {"new": threading.Event(), "old": threading.Event()}

    def build(settings: Settings) -> FakeEngine:
        assert go_on[settings.model.name].wait(30)
        return builder(settings)

    async with serving(build=build) as service:
        await service.client.post(PATH, json={"name": "new", "activate": True})
        readiness = service.state.readiness
        try:
            if phase == "draining":
                readiness.drain()
            else:
                service.engine.dead = True
                await until(lambda: readiness.phase == phase)
            go_on["new"].set()
            standby = (await settled(service))["standby"]
        finally:
            for event in go_on.values():
                event.set()
        assert (standby["state"], service.state.models.other) == ("failed", None)
        assert standby["reason"]
        if phase == "draining":
            check(await ask(service), 503, "draining")


async def test_names_outside_the_directory_are_refused(serving: Serving, checkpoints: Path) -> None:
    outside = checkpoints.parent / "outside"
    shutil.copytree(checkpoints / "new", outside)
    (checkpoints / "link").symlink_to(outside)
    (checkpoints / "empty").mkdir()
    shutil.copytree(checkpoints / "new", checkpoints / "leaking")
    (checkpoints / "leaking" / "model.safetensors").unlink()
    (checkpoints / "leaking" / "model.safetensors").symlink_to(outside / "model.safetensors")
    async with serving() as service:
        for name in ("..", ".", "../old", "old/../new", str(outside), "", "a\x00b"):
            check(await service.client.post(PATH, json={"name": name}), 422, "invalid_field", "name")
        for name in ("link", "empty", "missing", "leaking"):
            check(await service.client.post(PATH, json={"name": name}), 404, "checkpoint_not_found", "name")
        status = (await service.client.get(PATH)).json()
        assert (status["standby"], status["available"]) == (None, ["new", "old", "renamed"])


async def test_what_does_not_fit_the_state_is_refused(serving: Serving, checkpoints: Path) -> None:
    (checkpoints / "bad.jsonl").write_text('{"question": "Where?"}')
    (checkpoints / "cut.jsonl").write_text('\n{"question": ')
    async with serving() as service:
        for method, path in (("POST", "/activate"), ("POST", "/rollback"), ("DELETE", "")):
            check(await service.client.request(method, PATH + path), 409, "standby_conflict")
        check(await service.client.post(PATH, json={"name": "new", "questions": "no.jsonl"}), 404,
              "checkpoint_not_found", "questions")  # fmt: skip
        check(await service.client.post(PATH, json={"name": "new", "questions": "bad.jsonl"}), 422,
              "invalid_field", "questions.0.image")  # fmt: skip
        check(await service.client.post(PATH, json={"name": "new", "questions": "cut.jsonl"}), 422,
              "invalid_field", "questions.0")  # fmt: skip
        check(await service.client.post(PATH, json={"name": "new", "questions": []}), 422, "invalid_field", "questions")
        for without in ({"questions": "bad.jsonl"}, {"activate": True}):
            found = await service.client.post(PATH, json={"name": "new", "min_agreement": 0.9} | without)
            check(found, 422, "invalid_field")
            assert "goes with activate and questions" in found.text
        await loaded(service)
        check(await service.client.post(f"{PATH}/rollback"), 409, "standby_conflict")
        check(await service.client.post(PATH, json={"name": "new"}), 409, "standby_conflict")
        await service.client.post(f"{PATH}/activate")
        check(await service.client.post(f"{PATH}/activate"), 409, "standby_conflict")


async def test_memory_is_checked_before_the_start(
    serving: Serving, checkpoints: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(model=checkpoints / "new", encoder_cache_mib=512)
    check_second_engine(settings, free=3 * 2**30)
    with pytest.raises(InsufficientMemory, match=r"needs 2\.5 GiB, 0\.0 of them for weights, and 2\.0 GiB are free"):
        check_second_engine(settings, free=2 * 2**30)
    monkeypatch.setattr("medmoe.server.rollout.memory.free_memory", lambda: 2**30)
    async with serving(engine="vllm") as service:
        check(await service.client.post(PATH, json={"name": "new"}), 409, "insufficient_memory")
        assert (await service.client.get(PATH)).json()["standby"] is None
        assert not builder.built
    monkeypatch.setattr("medmoe.server.rollout.memory.built_for_cpu", lambda: False)
    with pytest.raises(InsufficientMemory, match=r"0\.92 of the GPU's memory each"):
        check_second_engine(settings)


async def test_the_scope_admin_and_the_setting_are_needed(serving: Serving, tmp_path: Path) -> None:
    asking, line = new_key("ward")
    operating, other = new_key("operator")
    (tmp_path / "keys").write_text(f"{line} scopes=ask,stats\n{other} scopes=admin\n")
    calls = [("GET", ""), ("POST", ""), ("DELETE", ""), ("POST", "/activate"), ("POST", "/rollback")]
    async with serving(api_keys=tmp_path / "keys") as service:
        for method, path in calls:
            check(await service.client.request(method, PATH + path), 401, "invalid_api_key")
            refused = await service.client.request(method, PATH + path, headers={"Authorization": f"Bearer {asking}"})
            check(refused, 403, "insufficient_scope")
        allowed = await service.client.get(PATH, headers={"Authorization": f"Bearer {operating}"})
        assert allowed.status_code == 200
    async with serving(checkpoints_dir=None) as service:
        for method, path in calls:
            check(await service.client.request(method, PATH + path), 404, "rollout_disabled")
