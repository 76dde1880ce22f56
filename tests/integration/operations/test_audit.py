"""The audit trail of a running service: what it records, when, and what a disk that fails means."""

import asyncio
import base64
import errno
import json
import os
import stat
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from medmoe.server.audit.keys import AuditKeys
from medmoe.server.audit.segment_writer import SegmentWriter
from medmoe.server.audit.verify import read_trail, verify_trail
from medmoe.server.auth.key_file import new_key
from medmoe.server.engine.fake_engine import FakeEngine
from medmoe.server.settings import Settings
from tests.integration.conftest import Medmoe, Service, ServiceFactory, base64_image, check, image_bytes, until
from tests.integration.training.test_calibration import CLASSIFICATION, LABELS, calibrate
from tests.support.images.series_files import ct_series
from tests.support.images.tagged_images import dicom
from tests.support.service.server_process import server_process

Audited = Callable[..., AbstractAsyncContextManager[Service]]
UIDS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "audit.key"
    path.write_text("2e" * 32)
    return path


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    return tmp_path / "trail"


@pytest.fixture
def audited(running: ServiceFactory, trail: Path, key_file: Path) -> Audited:
    def factory(**settings: Any) -> AbstractAsyncContextManager[Service]:
        return running(audit_dir=trail, audit_key=key_file, **settings)

    return factory


def records(trail: Path, *events: str) -> list[dict[str, Any]]:
    found = [dict(record.fields) for record in read_trail(trail)]
    return [fields for fields in found if not events or fields["event"] in events]


def files(trail: Path) -> list[Path]:
    return list(trail.iterdir())


def text(trail: Path) -> str:
    return "".join(path.read_text() for path in files(trail))


async def ask(service: Service, **fields: Any) -> httpx.Response:
    return await service.client.post("/v1/vqa", json={"image": base64_image(), "question": "Is it?"} | fields)


async def test_a_record_tells_who_asked_what_of_which_model(
    audited: Audited, trail: Path, key_file: Path, checkpoint: Path, tmp_path: Path
) -> None:
    key, line = new_key("ward-7")
    (tmp_path / "keys").write_text(line)
    async with audited(api_keys=tmp_path / "keys") as service:
        headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "a-1"}
        form = {"data": {"question": "Is it?"}, "files": {"image": ("x.png", image_bytes(), "image/png")}}
        assert (await service.client.post("/v1/vqa", headers=headers, **form)).status_code == 200
        assert (await service.client.post("/v1/vqa", json={})).status_code == 401
        assert (await service.client.get("/v1/models", headers=headers)).status_code == 200
        subject = service.state.authenticator.find(key).tenant.log_id
        identity = service.state.audit.identity if service.state.audit else None
    start, answered, refused, stop = records(trail)
    assert start["event"], stop["event"] == ("start", "stop")
    assert identity is not None
    assert identity.items() <= start.items()
    assert start["service"].startswith("medmoe ")
    assert len(start["settings_sha256"]) == len(start["config_sha256"]) == 64
    keys = AuditKeys.from_file(key_file, named_by="--key-file")
    assert answered["images"] == [{"image": keys.image_digest(image_bytes())}]
    expected = {"request_id": "a-1", "subject": subject, "method": "POST", "route": "/v1/vqa", "status": 200}
    assert (expected | {"error": None, "calibrated": False, "abstained": False}).items() <= answered.items()
    assert 0 < answered["duration_seconds"] < 60
    assert (refused["status"], refused["error"], refused["subject"]) == (401, "invalid_api_key", None)
    assert verify_trail(trail, keys=keys).records == 4


async def test_every_way_to_ask_is_recorded(audited: Audited, trail: Path, classify_body: dict[str, Any]) -> None:
    content = [
        {"type": "text", "text": "Is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64_image()}"}},
    ]
    chat = {"messages": [{"role": "user", "content": content}]}
    async with audited() as service:
        for path, body in (
            ("/v1/classify", classify_body),
            ("/v1/render", {"image": base64_image()}),
            ("/v1/chat/completions", chat),
        ):
            assert (await service.client.post(path, json=body)).status_code == 200
        assert (await ask(service, image="no base64!")).status_code == 400
        assert (await ask(service, image=base64.b64encode(b"no image").decode())).status_code == 415
    found = records(trail, "request")
    assert [fields["route"] for fields in found[:3]] == ["/v1/classify", "/v1/render", "/v1/chat/completions"]
    same = {json.dumps(fields["images"]) for fields in found[:3]}
    assert len(same) == 1, "the same file, however it was sent"
    assert [fields["abstained"] for fields in found] == [False, None, False, None, None]
    assert [fields["error"] for fields in found[3:]] == ["malformed_image", "unsupported_image"]
    assert [bool(fields["images"][0]) for fields in found[3:]] == [False, True]


async def test_a_record_says_of_trust_what_the_answer_says(
    audited: Audited, trail: Path, checkpoint: Path, tmp_path: Path
) -> None:
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{base64_image()}"}
    question = {"type": "predicate", "instructions": "Is there a fracture?"}
    decision = {"model": "tiny", "input": [{"role": "user", "content": [image]}], "questions": [question]}
    labels = {"image": base64_image(), "labels": ["yes", "Yes", "no", "No"], "question": question["instructions"]}
    files = [("series", ("a", file, "application/dicom")) for file in ct_series(range(24, 40))]
    calibrated = calibrate(checkpoint, tmp_path / "calibrated", classification=CLASSIFICATION)
    async with audited(model=calibrated, min_label_mass=0) as service:

        async def asked(path: str, **sent: Any) -> dict[str, Any]:
            response = await service.client.post(path, **sent)
            assert response.status_code == 200, response.text
            found: dict[str, Any] = response.json()
            return found

        shares = [one["probability"] for one in (await asked("/v1/classify", json=labels))["probabilities"]]
        # Over each spelling's probability, under that of the likelier answer.
        least = (max(shares) + max(sum(shares[:2]), sum(shares[2:]))) / 2
        (answer,) = (await asked("/v1/decisions", json=decision | {"min_confidence": least}))["answers"]
        (refusal,) = (await asked("/v1/decisions", json=decision | {"min_confidence": 1}))["answers"]
        assert (answer["type"], refusal["type"]) == ("predicate", "refusal")
        form = {"labels": json.dumps(LABELS), "slices": "4"}
        one_of_many = await asked("/v1/series", data=form, files=files)
        assert all(one["classification"]["calibration"] for one in one_of_many["slices"])
        sure = [one["classification"]["probabilities"] for one in one_of_many["slices"]]
        surest = max(one["probability"] for slice_ in sure for one in slice_)
        series = await asked("/v1/series", data=form | {"min_confidence": str(surest)}, files=files)
        assert {one["classification"]["abstained"] for one in series["slices"]} == {True, False}
        streamed = await service.client.post("/v1/series", data=form | {"stream": "true"}, files=files)
        assert streamed.status_code == 200
    assert (one_of_many["calibrated"], one_of_many["abstained"], series["abstained"]) == (False, False, False)
    found = records(trail, "request", "stream_end")[1:]
    assert [(fields["calibrated"], fields["abstained"]) for fields in found] == [
        (False, False),
        (False, True),
        (False, False),
        (False, False),
        (False, False),
    ]


async def test_the_record_is_there_before_the_answer(audited: Audited, trail: Path) -> None:
    async with audited() as service:
        body = json.dumps({"image": base64_image(), "question": "Is it?"}).encode()
        for stream in (False, True):
            seen: list[str] = []

            async def send(message: Any, seen: list[str] = seen) -> None:
                if message["type"] == "http.response.start":
                    seen += [fields["event"] for fields in records(trail)]

            sent = json.dumps(json.loads(body) | {"stream": stream}).encode()
            await _call(service, sent, send)
            assert seen[-1] == ("stream" if stream else "request")
    begun, ended = records(trail, "stream", "stream_end")
    assert begun["stream"] == ended["stream"]
    assert (begun["abstained"], ended["abstained"]) == (None, False)
    assert begun["images"] == ended["images"] != []


async def _call(service: Service, content: bytes, send: Any) -> None:
    request = httpx.Request(
        "POST", "http://service/v1/vqa", content=content, headers={"content-type": "application/json"}
    )
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/vqa", "raw_path": b"/v1/vqa", "query_string": b"", "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": ("service", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    messages = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> Any:
        while not messages:
            await asyncio.Event().wait()
        return messages.pop()

    await service.app(scope, receive, send)


async def test_clients_that_leave_are_recorded(audited: Audited, trail: Path, engine: FakeEngine) -> None:
    async with audited() as service:
        engine.delay = 3600
        before = engine.started
        asking = asyncio.create_task(ask(service))
        await until(lambda: engine.started > before)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        engine.delay = 0
    (left,) = records(trail, "request")
    assert left["status"] == 499
    assert left["images"]


async def test_concurrent_requests_make_one_chain(audited: Audited, trail: Path, key_file: Path) -> None:
    async with audited(audit_sync="always", image_cache_entries=8) as service:
        answers = await asyncio.gather(*(ask(service, stream=bool(n % 2)) for n in range(24)))
        assert {answer.status_code for answer in answers} == {200}
    assert verify_trail(trail, keys=AuditKeys.from_file(key_file, named_by="--key-file")).records == 2 + 12 + 24


async def test_an_auditor_finds_an_image_and_its_uids(
    audited: Audited, trail: Path, key_file: Path, medmoe: Medmoe, tmp_path: Path
) -> None:
    file = dicom(**UIDS_OF_FILE)
    (tmp_path / "a.dcm").write_bytes(file)
    (tmp_path / "b.png").write_bytes(image_bytes())
    async with audited() as service:
        for _ in range(2):
            # The second comes from the cache.
            assert (await ask(service, image=base64.b64encode(file).decode())).status_code == 200
    kept = text(trail)
    for uid in UIDS_OF_FILE.values():
        assert uid not in kept
        found = medmoe("audit", "find", trail, "--key-file", key_file, "--uid", uid)
        assert found.returncode == 0
        assert len(found.stdout.splitlines()) == 2
    found = medmoe("audit", "find", trail, "--key-file", key_file, "--image", tmp_path / "a.dcm")
    assert {json.loads(line)["event"] for line in found.stdout.splitlines()} == {"request"}
    missing = medmoe("audit", "find", trail, "--key-file", key_file, "--image", tmp_path / "b.png")
    assert (missing.returncode, missing.stdout, missing.stderr) == (1, "", "no record\n")


UIDS_OF_FILE = {keyword: f"1.2.826.0.1.3680043.8.498.77{n}" for n, keyword in enumerate(UIDS.values())}


async def test_a_listing_names_its_study_by_a_digest(audited: Audited, trail: Path, key_file: Path) -> None:
    async with audited() as service:
        response = await service.client.get("/v1/sources/pacs/studies/1.2.3/series")
        assert response.status_code == 404
    (listed,) = records(trail, "request")
    assert listed["route"] == "/v1/sources/{source}/studies/{study}/series"
    assert listed["listed"] == {"study": AuditKeys.from_file(key_file, named_by="--key-file").uid_digest("1.2.3")}


async def test_what_a_request_names_in_a_source_is_found_also_when_it_is_refused(
    audited: Audited, trail: Path, key_file: Path
) -> None:
    series = {"study": "1.2.3", "series": "1.2.3.4"}
    instance = series | {"instance": "1.2.3.4.5"}
    async with audited() as service:
        check(await ask(service, image={"source": "pacs"} | instance), 404, "source_not_found", "source")
        asked = {"series": {"source": "pacs"} | series, "question": "Is it?"}
        response = await service.client.post("/v1/series", json=asked)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "source_not_found")
    digest = AuditKeys.from_file(key_file, named_by="--key-file").uid_digest
    assert [fields["images"] for fields in records(trail, "request")] == [
        [{name: digest(uid) for name, uid in named.items()}] for named in (instance, series)
    ]


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(SegmentWriter, "_write", fail)
    monkeypatch.setattr("medmoe.server.audit.trail._RETRY_SECONDS", 0.0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_disk_refuses(
    audited: Audited, trail: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    async with audited() as service:
        with monkeypatch.context() as patch:
            full(patch)
            response = await ask(service, stream=stream)
            check(response, 503, "audit_unavailable")
            assert "retry-after" in response.headers
            metrics = (await service.client.get("/metrics")).text
            assert "medmoe_audit_failures_total 0.0" not in metrics
            assert (await service.client.get("/health/live")).status_code == 200
            patch.setattr("medmoe.server.audit.trail._RETRY_SECONDS", 3600)
            check(await ask(service, stream=stream), 503, "audit_unavailable")
            before = service.engine.started
            check(await ask(service, stream=stream), 503, "audit_unavailable")
            assert service.engine.started == before, "refused before the engine works"
            assert service.state.audit is not None
            service.state.audit._retry_at = 0
        assert (await ask(service)).status_code == 200
    assert next(line.levelname for line in caplog.records if line.message == "audit trail failed") == "CRITICAL"
    resumed, answered = records(trail, "resume", "request")[:2]
    assert resumed["event"] == "resume"
    assert answered["unrecorded"]["audit_unavailable"] >= 3


async def test_a_full_disk_can_be_let_pass(
    audited: Audited, trail: Path, monkeypatch: pytest.MonkeyPatch, key_file: Path
) -> None:
    async with audited(audit_on_failure="continue") as service:
        with monkeypatch.context() as patch:
            full(patch)
            for _ in range(2):
                assert (await ask(service)).status_code == 200
            assert "medmoe_audit_failures_total 2.0" in (await service.client.get("/metrics")).text
        assert (await ask(service)).status_code == 200
    (answered,) = records(trail, "request")
    assert answered["unrecorded"] == {"audit_unavailable": 2}
    verify_trail(trail, keys=AuditKeys.from_file(key_file, named_by="--key-file"))


async def test_records_that_a_later_sync_fails_to_bring_to_the_disk_are_counted(
    audited: Audited, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failures(service: Service) -> str:
        metrics = (await service.client.get("/metrics")).text
        return next(line for line in metrics.splitlines() if line.startswith("medmoe_audit_failures_total"))

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("medmoe.server.audit.trail._SYNC_SECONDS", 0.0)
    async with audited() as service:
        assert (await ask(service)).status_code == 200
        monkeypatch.setattr("medmoe.server.audit.trail._SYNC_SECONDS", 0.5)
        assert await failures(service) == "medmoe_audit_failures_total 0.0"
        for _ in range(2):
            assert (await ask(service)).status_code == 200
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            await until(lambda: "audit trail failed" in caplog.text)
        assert await failures(service) == "medmoe_audit_failures_total 2.0"


@pytest.mark.parametrize("on_failure", ["refuse", "continue"])
async def test_a_record_that_is_not_on_the_disk_but_in_the_file_is_not_called_missing(
    audited: Audited, trail: Path, monkeypatch: pytest.MonkeyPatch, key_file: Path, on_failure: str
) -> None:
    real, failures = os.fsync, 1

    def fail(descriptor: int) -> None:
        nonlocal failures
        if failures and stat.S_ISREG(os.fstat(descriptor).st_mode):
            failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    async with audited(audit_sync="always", audit_on_failure=on_failure) as service:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            patch.setattr("medmoe.server.audit.trail._RETRY_SECONDS", 0.0)
            response = await ask(service)
            assert response.status_code == (503 if on_failure == "refuse" else 200)
            assert "medmoe_audit_failures_total 1.0" in (await service.client.get("/metrics")).text
        assert (await ask(service)).status_code == 200
    told = [(fields["status"], fields.get("unrecorded")) for fields in records(trail, "request")]
    # The answer that the first record tells of was not given.
    assert told == [(200, None), *([(503, None)] if on_failure == "refuse" else []), (200, None)]
    verify_trail(trail, keys=AuditKeys.from_file(key_file, named_by="--key-file"))


async def test_a_disk_that_hangs_refuses(
    audited: Audited, trail: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = SegmentWriter._write

    def hang(self: SegmentWriter, fields: Any) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        real(self, fields)

    async with audited() as service:
        with monkeypatch.context() as patch:
            patch.setattr("medmoe.server.audit.trail._PATIENCE", 0.05)
            patch.setattr(SegmentWriter, "_write", hang)
            for _ in range(3):
                check(await ask(service), 503, "audit_unavailable")
            assert caplog.messages.count("audit trail failed") == 1
            release.set()
            await until(lambda: service.state.audit is not None and service.state.audit._writing is None)
        assert (await ask(service)).status_code == 200
    held, withheld, answered = records(trail, "request")
    # Its record was on the way to the disk when the answer was given up.
    assert held["request_id"] == withheld["request_id"] != answered["request_id"]
    assert [(fields["status"], fields["error"]) for fields in (held, withheld, answered)] == [
        (200, None),
        (503, "audit_unavailable"),
        (200, None),
    ]


_ON_A_DISK_THAT_MAY_HANG = """
import os, time
from medmoe.server import __main__
from medmoe.server.audit import trail

trail._PATIENCE = 0.5
real = os.fsync

def fsync(descriptor):
    while os.path.exists(os.environ["HANGS"]):
        time.sleep(0.05)
    real(descriptor)

os.fsync = fsync
__main__.main()
"""


def test_a_disk_that_hangs_does_not_keep_the_process(
    checkpoint: Path, trail: Path, key_file: Path, vqa_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = trail.with_name("hangs")
    monkeypatch.setenv("HANGS", str(hangs))
    settings = {"MODEL": checkpoint, "ENGINE": "fake", "AUDIT_DIR": trail, "AUDIT_KEY": key_file}
    settings |= {"AUDIT_SYNC": "always", "AUDIT_ON_FAILURE": "continue"}
    with server_process(
        arguments=("-c", _ON_A_DISK_THAT_MAY_HANG),
        settings={f"MEDMOE_{name}": str(value) for name, value in settings.items()},
    ) as server:
        server.wait_ready(300)
        hangs.touch()
        for _ in range(2):
            assert httpx.post(f"{server.url}/v1/vqa", json=vqa_body, timeout=60).status_code == 200
        server.stop()
        log = [json.loads(line) for line in server.lines]
    assert server.process.returncode == 0
    (lacks,) = [line for line in log if line["message"] == "audit trail lacks records"]
    # Two answers and the stop.
    assert lacks["unrecorded"] == {"audit_unavailable": 3}


async def test_a_full_disk_at_the_end_is_told(
    audited: Audited, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with audited():
        full(monkeypatch)
    (lacks,) = [line for line in caplog.records if line.getMessage() == "audit trail lacks records"]
    assert vars(lacks)["fields"] == {"unrecorded": {"audit_unavailable": 1}}


async def test_a_disk_that_is_full_at_the_start_ends_it(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch)
    async with audited(wait=False) as service:
        assert service.state.starting is not None
        await service.state.starting
        assert service.state.unusable == (
            "MEDMOE_AUDIT_DIR: the audit trail cannot be written: No space left on device"
        )
    async with audited(audit_on_failure="continue") as service:
        assert (await ask(service)).status_code == 200


async def test_a_flood_of_refusals_is_counted_and_not_recorded(
    audited: Audited, trail: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medmoe.server.audit.request_auditor._REFUSALS_PER_MINUTE", 2)
    async with audited() as service:
        for _ in range(5):
            assert (await service.client.post("/v1/vqa", json={})).status_code == 422
        assert (await ask(service)).status_code == 200
    assert [fields["status"] for fields in records(trail, "request")] == [422, 422, 200]
    assert records(trail, "request")[-1]["unrecorded"] == {"invalid_field": 3}


async def test_what_is_recorded_counts_against_the_rate(audited: Audited, trail: Path, tmp_path: Path) -> None:
    form: dict[str, Any] = {"files": {"file": ("a", b"{}\n")}, "data": {"purpose": "batch"}}
    async with audited(batch_dir=tmp_path / "batches", requests_per_minute=2) as service:
        client = service.client
        file_id = (await client.post("/v1/files", **form)).json()["id"]
        assert (await client.get(f"/v1/files/{file_id}/content")).status_code == 200
        for method, path in (
            ("GET", "/v1/sources"),
            ("GET", f"/v1/files/{file_id}/content"),
            ("HEAD", f"/v1/files/{file_id}/content"),
            ("DELETE", f"/v1/files/{file_id}"),
        ):
            refused = await client.request(method, path)
            assert refused.status_code == 429, path
            assert int(refused.headers["retry-after"]) <= 30
        # A program that waits for a batch asks often, and leaves no record.
        assert [file["id"] for file in (await client.get("/v1/files")).json()["data"]] == [file_id]


def test_a_trail_without_a_key_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="MEDMOE_AUDIT_DIR needs MEDMOE_AUDIT_KEY"):
        Settings(model=checkpoint, audit_dir=tmp_path)
    with pytest.raises(ValueError, match="MEDMOE_AUDIT_KEY needs MEDMOE_AUDIT_DIR"):
        Settings(model=checkpoint, audit_key=tmp_path / "key")


async def test_the_commands_check_and_export(
    audited: Audited, trail: Path, key_file: Path, medmoe: Medmoe, classify_body: dict[str, Any]
) -> None:
    async with audited() as service:
        await ask(service, stream=True)
        await service.client.post("/v1/classify", json=classify_body)
        await service.client.post("/v1/classify", json={})
        await service.client.get("/v1/sources/pacs/studies/1.2.3/series")
    checked = medmoe("audit", "verify", trail, "--key-file", key_file)
    assert checked.returncode == 0
    head = checked.stdout.splitlines()[-1].removeprefix("head: ")
    assert medmoe("audit", "verify", trail, "--head", head).returncode == 0
    exported = medmoe("audit", "export", trail).stdout.splitlines()
    assert [json.loads(line) for line in exported] == records(trail)
    resources = [json.loads(line) for line in medmoe("audit", "export", "--fhir", trail).stdout.splitlines()]
    assert len(resources) == len(exported)
    for resource in resources:
        _check_audit_event(resource)
    assert [resource["outcome"] for resource in resources] == ["0", "0", "0", "0", "4", "4", "0"]
    path = trail / "audit-000001.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    broken = medmoe("audit", "verify", trail)
    assert broken.returncode == 1
    assert broken.stderr.startswith("error: audit-000001.jsonl, line 7: it is incomplete")
    assert medmoe("audit", "export", trail).returncode == 1


_CODES = {
    "http://terminology.hl7.org/CodeSystem/audit-event-type": {"rest"},
    "http://dicom.nema.org/resources/ontology/DCM": {"110100", "110120", "110121"},
    "http://hl7.org/fhir/restful-interaction": {"operation", "search-type"},
    "http://terminology.hl7.org/CodeSystem/audit-entity-type": {"2"},
    "http://terminology.hl7.org/CodeSystem/security-source-type": {"4"},
}
"""Codes of R4 that AuditEvent's bindings hold and that the service uses."""


def _check_audit_event(resource: dict[str, Any]) -> None:
    """The cardinalities and the codes of https://hl7.org/fhir/R4/auditevent.html."""
    allowed = {
        "resourceType",
        "id",
        "type",
        "subtype",
        "action",
        "recorded",
        "outcome",
        "outcomeDesc",
        "agent",
        "source",
        "entity",
    }
    assert resource.keys() <= allowed
    assert {"type", "recorded", "agent", "source"} <= resource.keys()
    assert resource["resourceType"] == "AuditEvent"
    assert len(resource["id"]) <= 64
    assert resource["action"] in "CRUDE"
    assert resource["outcome"] in ("0", "4", "8", "12")
    assert resource["agent"]
    assert all(isinstance(agent["requestor"], bool) for agent in resource["agent"])
    assert resource["source"]["observer"]
    codings = [resource["type"], *resource.get("subtype", []), *resource["source"]["type"]]
    for entity in resource.get("entity", []):
        assert entity.keys() <= {"what", "type", "name", "detail"}
        assert entity["what"]["identifier"]["value"]
        assert all(set(detail) == {"type", "valueString"} for detail in entity.get("detail", []))
        codings.append(entity["type"])
    for coding in codings:
        assert coding["code"] in _CODES[coding["system"]], coding


async def test_what_a_foreign_page_sends_is_recorded(audited: Audited, trail: Path) -> None:
    async with audited() as service:
        for method, path in (("POST", "/v1/vqa"), ("POST", "/v1/files"), ("GET", "/v1/sources")):
            answer = await service.client.request(method, path, headers={"Sec-Fetch-Site": "cross-site"})
            check(answer, 403, "forbidden_origin")
        metrics = (await service.client.get("/metrics")).text
    found = [(fields["route"], fields["status"], fields["error"]) for fields in records(trail, "request")]
    assert found == [(path, 403, "forbidden_origin") for path in ("/v1/vqa", "/v1/files", "/v1/sources")]
    assert 'medmoe_requests_total{route="/v1/vqa",status="403"} 1.0' in metrics


@pytest.fixture
def loading(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set to let the engine start."""
    loaded, start = asyncio.Event(), engine.start

    async def starting() -> None:
        await loaded.wait()
        await start()

    monkeypatch.setattr(engine, "start", starting)
    return loaded


async def test_refusals_while_the_model_loads_keep_their_words_and_are_counted(
    audited: Audited, trail: Path, tmp_path: Path, loading: asyncio.Event
) -> None:
    key, line = new_key("ward-7")
    (tmp_path / "keys").write_text(line)
    ward = {"Authorization": f"Bearer {key}"}
    async with audited(wait=False, api_keys=tmp_path / "keys", batch_dir=tmp_path / "batches") as service:
        client = service.client
        check(await client.post("/v1/vqa", json={}, headers=ward), 503, "not_ready")
        check(await client.post("/v1/vqa", json={}), 401, "invalid_api_key")
        check(await client.get("/v1/sources"), 401, "invalid_api_key")
        assert "medmoe_audit_failures_total 0.0" in (await client.get("/metrics", headers=ward)).text
        loading.set()
        assert service.state.starting is not None
        await service.state.starting
        assert (await client.get("/v1/sources", headers=ward)).status_code == 200
    start, listed, _ = records(trail)
    assert start["event"] == "start"
    assert listed["unrecorded"] == {"not_ready": 1, "invalid_api_key": 2}


async def test_nothing_is_changed_or_read_without_a_record(
    audited: Audited, trail: Path, tmp_path: Path, loading: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with audited(wait=False, batch_dir=tmp_path / "batches") as service:
        client = service.client
        form: dict[str, Any] = {"files": {"file": ("a", b"{}\n")}, "data": {"purpose": "batch"}}

        async def refused(file_id: str) -> None:
            kept = (await client.get("/v1/files")).json()["data"]
            for method, path in (
                ("DELETE", f"/v1/files/{file_id}"),
                ("GET", f"/v1/files/{file_id}/content"),
                ("POST", "/v1/batches"),
                ("POST", "/v1/batches/batch_1/cancel"),
                ("GET", "/v1/sources"),
                ("GET", "/v1/sources/pacs/studies"),
            ):
                check(await client.request(method, path), 503, "audit_unavailable")
            check(await client.post("/v1/files", **form), 503, "audit_unavailable")
            assert (await client.get("/v1/files")).json()["data"] == kept

        await refused("file-1")
        loading.set()
        assert service.state.starting is not None
        await service.state.starting
        file_id = (await client.post("/v1/files", **form)).json()["id"]
        with monkeypatch.context() as patch:
            full(patch)
            patch.setattr("medmoe.server.audit.trail._RETRY_SECONDS", 3600)
            check(await ask(service), 503, "audit_unavailable")
            await refused(file_id)
            assert service.state.audit is not None
            service.state.audit._retry_at = 0
        assert (await client.delete(f"/v1/files/{file_id}")).status_code == 200
    assert [fields["method"] for fields in records(trail, "request")] == ["POST", "DELETE"]
