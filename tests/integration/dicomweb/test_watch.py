"""`medmoe watch` against a real PACS: each new image is asked about once, and its report stored once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import Medmoe
from tests.support.images.phantom import chest_ct_file
from tests.support.service.orthanc import PASSWORD, USER, Orthanc, needs_orthanc
from tests.support.service.scripted_service import Reply, refusal, scripted_service
from tests.support.service.server_process import ServerProcess, server_process

pytestmark = [needs_orthanc, pytest.mark.timeout(300)]

STUDY, SERIES = "1.2.826.0.1.3680043.8.498.70", "1.2.826.0.1.3680043.8.498.71"
IMAGES = 4


def image(number: int) -> bytes:
    uids = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "SOPInstanceUID": f"{SERIES}.{number}"}
    return chest_ct_file(64, **uids, StudyDate="20270301", InstanceNumber=number, PatientName="Cnry^Watch")


@pytest.fixture(scope="module")
def service(checkpoint: Path, pacs: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "password").write_text(f"{USER}:{PASSWORD}\n")
    sources = folder / "sources.toml"
    # Nothing listens at port 9.
    sources.write_text(
        f'[pacs]\nurl = "{pacs.url}"\npassword_file = "password"\nstore = true\n\n[down]\nurl = "http://127.0.0.1:9"\n'
    )
    settings = {"MEDMOE_MODEL": str(checkpoint), "MEDMOE_ENGINE": "fake", "MEDMOE_DICOMWEB_SOURCES": str(sources)}
    with server_process(settings=settings) as server:
        server.wait_ready(300)
        yield server


@pytest.fixture(autouse=True)
def study(pacs: Orthanc) -> Iterator[None]:
    """Add a study of one series, and delete it with its reports."""
    for number in range(1, IMAGES + 1):
        pacs.add(image(number))
    yield
    for found in pacs.http.post("/tools/lookup", content=STUDY).json():
        pacs.http.delete(found["Path"]).raise_for_status()


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return write_rules(tmp_path / "rules.toml")


def write_rules(path: Path, **entries: Any) -> Path:
    values = {"source": "pacs", "modality": "CT", "description": "chest", "store": True, "instances": "all"}
    values |= {} if "labels" in entries else {"question": "Is there a fracture?"}
    if entries.get("series"):
        del values["instances"]
    lines = [f"{name} = {json.dumps(value)}" for name, value in (values | entries).items()]
    path.write_text("\n".join(["[chest-ct]", "since = 2027-01-01", *lines, ""]))
    return path


def reports(pacs: Orthanc) -> int:
    series = pacs.query(f"/studies/{STUDY}/series", Modality="SR")
    return sum(len(pacs.query(f"/studies/{STUDY}/series/{one['0020000E']['Value'][0]}/instances")) for one in series)


def counts(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_a_new_study_is_asked_about_once(
    service: ServerProcess, pacs: Orthanc, medmoe: Medmoe, rules: Path, tmp_path: Path
) -> None:
    dry = medmoe("watch", rules, "--dry-run", url=service.url)
    assert (dry.returncode, reports(pacs), (tmp_path / "rules.state").exists()) == (0, 0, False), dry.stderr
    assert "would ask about 4 of 4 images" in dry.stdout
    first = medmoe("watch", rules, "--once", url=service.url)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("\n") == 1
    assert "4 of 4 images answered, 4 reports stored" in first.stdout
    for _ in range(2):
        again = medmoe("watch", rules, "--once", url=service.url)
        assert (again.returncode, again.stdout, again.stderr, reports(pacs)) == (0, "", "", 4)
    dry = medmoe("watch", rules, "--dry-run", url=service.url)
    expected = "would ask about nothing; studies of a rule's modality and dates: 1\n"
    assert (dry.returncode, dry.stdout, dry.stderr) == (0, "", expected)
    pacs.add(image(5))
    (later,) = counts(medmoe("watch", rules, "--once", "--json", url=service.url).stdout)
    assert (later["images"], later["known"], later["asked"], later["stored"]) == (5, 4, 1, 1)
    assert reports(pacs) == 5
    for text in (first.stdout, (tmp_path / "rules.state").read_text()):
        assert STUDY not in text
        assert SERIES not in text
        assert "cnry" not in text.lower()
    write_rules(rules, labels=["CT", "MRI"], instances="middle", store=False)
    (other,) = counts(medmoe("watch", rules, "--once", "--json", "--show-uids", url=service.url).stdout)
    assert (other["study"], other["asked"], other["stored"]) == (STUDY, 1, 0)


def test_a_series_is_asked_about_once_as_a_whole(
    service: ServerProcess, pacs: Orthanc, medmoe: Medmoe, tmp_path: Path
) -> None:
    rules = write_rules(tmp_path / "rules.toml", series=True, slices=2, finding="MRI", labels=["CT", "MRI"])
    dry = medmoe("watch", rules, "--dry-run", url=service.url)
    assert ("would ask about 1 of 1 series" in dry.stdout, reports(pacs)) == (True, 0), dry.stderr
    first = medmoe("watch", rules, "--once", url=service.url)
    assert "1 of 1 series answered, 1 reports stored" in first.stdout, first.stderr
    again = medmoe("watch", rules, "--once", url=service.url)
    assert (again.returncode, again.stdout, again.stderr, reports(pacs)) == (0, "", "", 1)
    pacs.add(image(IMAGES + 1))
    (grown,) = counts(medmoe("watch", rules, "--once", "--json", url=service.url).stdout)
    assert {name: grown[name] for name in ("series", "images", "known", "asked", "stored")} == {
        "series": 1, "images": 0, "known": 0, "asked": 1, "stored": 1,
    }  # fmt: skip


def through(service: ServerProcess, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
    kind = {"Content-Type": headers["Content-Type"]} if body else {}
    method = "POST" if body else "GET"
    response = httpx.request(method, f"{service.url}{path}", content=body, headers=kind, timeout=60)
    return Reply(status=response.status_code, body=response.content)


def test_a_kill_loses_no_image_and_stores_none_twice(
    service: ServerProcess, pacs: Orthanc, medmoe: Medmoe, rules: Path
) -> None:
    def gate(path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        reply = through(service, path, headers, body)
        # The second report is stored, but the answer never arrives.
        return Reply(hang=True) if body and reports(pacs) == 2 else reply

    with scripted_service(gate) as between:
        command = [sys.executable, "-m", "medmoe.model.cli", "watch", str(rules), "--once", "--url", between.url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            while reports(pacs) < 2:
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
        finally:
            process.kill()
            process.communicate()
    (counted,) = counts(medmoe("watch", rules, "--once", "--json", url=service.url).stdout)
    assert (counted["known"], counted["asked"], reports(pacs)) == (1, 3, 4)


def test_an_outage_is_said_once_and_ends(service: ServerProcess, pacs: Orthanc, medmoe: Medmoe, rules: Path) -> None:
    def until_stored(path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if reports(pacs) == IMAGES:
            os.kill(os.getpid(), signal.SIGINT)
            return Reply(hang=True)
        return through(service, path, headers, body)

    gone = refusal(503, "not_ready", type_="unavailable_error")
    with scripted_service(*[gone] * 6, until_stored) as between:
        done = medmoe("watch", rules, "--interval", 0.1, url=between.url)
    assert done.returncode == 130
    assert done.stderr.splitlines() == [
        "No. [not_ready, request r1]; trying again until the service answers",
        "the service answers again",
        "interrupted: 4 images were answered; run the same command again to continue",
    ]
    assert "4 reports stored" in done.stdout


def test_a_source_that_is_down_holds_up_no_other(
    service: ServerProcess, pacs: Orthanc, medmoe: Medmoe, rules: Path
) -> None:
    text = rules.read_text()
    rules.write_text(text.replace("chest-ct", "first").replace('"pacs"', '"down"').replace("true", "false") + text)
    done = medmoe("watch", rules, "--once", url=service.url)
    assert done.returncode == 1
    assert "source_unavailable" in done.stderr
    assert ("chest-ct: study" in done.stdout, reports(pacs)) == (True, 4)


def test_a_rule_that_the_service_cannot_follow(service: ServerProcess, medmoe: Medmoe, tmp_path: Path) -> None:
    def refused(**entries: Any) -> str:
        done = medmoe("watch", write_rules(tmp_path / "rules.toml", **entries), "--once", url=service.url)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        return done.stderr

    assert "rule chest-ct: the service has no source pasc; did you mean pacs?" in refused(source="pasc")
    assert "stores no reports in down" in refused(source="down")
    assert "rule chest-ct: " in refused(question="q" * 100_000)


def test_an_image_that_cannot_be_read_is_refused_once(
    service: ServerProcess, pacs: Orthanc, medmoe: Medmoe, rules: Path
) -> None:
    broken = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{SERIES}.2", "SOPInstanceUID": f"{SERIES}.2.1"}
    pacs.add(chest_ct_file(64, **broken, StudyDate="20270301", PhotometricInterpretation="XYZ"))
    (counted,) = counts(medmoe("watch", rules, "--once", "--json", url=service.url).stdout)
    assert (counted["asked"], sum(counted["refused"].values())) == (4, 1)
    assert medmoe("watch", rules, "--once", url=service.url).stdout == ""
