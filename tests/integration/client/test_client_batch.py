"""`medmoe batch`: killed at any moment and run again, it leaves the file of a run that was not."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import Medmoe, image_bytes
from tests.support.images.dicom_files import dicom, gradient
from tests.support.service.client_answer import ANSWER
from tests.support.service.scripted_service import Reply, refusal, scripted_service
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(300)

IMAGES = 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for number in range(IMAGES - 1):
        where = folder / "below" if number % 2 else folder
        (where / f"{number:02}.png").write_bytes(image_bytes(shade=number))
    (folder / "a dicom file").write_bytes(dicom(gradient((40, 48))))
    (folder / "notes.txt").write_text("no image")
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def killed_in_the_middle(server: ServerProcess, answers: int, output: Path, *arguments: object) -> None:
    """Let so many requests through to `server` and hold the rest; end the run without a word once it waits for them."""

    def through(path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        kind = {"Content-Type": headers["Content-Type"]}
        response = httpx.post(f"{server.url}{path}", content=body, headers=kind, timeout=60)
        return Reply(status=response.status_code, body=response.content)

    with scripted_service(*[through] * answers, Reply(hang=True)) as gate:
        command = ["-m", "medmoe.model.cli", "batch", *map(str, arguments), "--url", gate.url]
        before = output.read_bytes().count(b"\n") if output.exists() else 0
        process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            while len(gate.asked) <= answers or output.read_bytes().count(b"\n") <= before + 1:
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_killed_run_is_continued_to_the_same_file(
    medmoe: Medmoe, server: ServerProcess, folder: Path, tmp_path: Path, suffix: str
) -> None:
    whole, resumed = tmp_path / f"whole.{suffix}", tmp_path / f"resumed.{suffix}"
    ask = ("--question", "Which organ is this?", "--concurrency", 3)
    done = medmoe("batch", folder, whole, *ask, url=server.url)
    assert done.returncode == 0, done.stderr
    assert "left out, because not images: notes.txt" in done.stderr
    killed_in_the_middle(server, 7, resumed, folder, resumed, *ask)
    # As a machine without power may leave it.
    with resumed.open("ab") as file:
        file.write(whole.read_bytes().splitlines(keepends=True)[-1][:-20])
    killed_in_the_middle(server, 7, resumed, folder, resumed, *ask)
    there = resumed.read_bytes().count(b"\n") - (suffix == "csv")
    assert 0 < there < IMAGES
    counted = json.loads(medmoe("batch", folder, resumed, *ask, "--json", url=server.url).stdout)
    assert counted == {"lines": IMAGES, "asked": IMAGES - there, "errors": 0}
    assert resumed.read_bytes() == whole.read_bytes()
    again = medmoe("batch", folder, resumed, *ask, "--json", url=server.url)
    assert json.loads(again.stdout) == {"lines": IMAGES, "asked": 0, "errors": 0}
    assert resumed.read_bytes() == whole.read_bytes()
    rows = lines(whole) if suffix == "jsonl" else list(csv.DictReader(whole.open()))
    expected = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "notes.txt")
    assert [row["image"] for row in rows] == [path.relative_to(folder).as_posix() for path in expected]


def test_an_interrupted_run_says_how_to_continue(
    medmoe: Medmoe, server: ServerProcess, folder: Path, tmp_path: Path
) -> None:
    def interrupt(path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        os.kill(os.getpid(), signal.SIGINT)
        return Reply(hang=True)

    kind = {"Content-Type": "application/json"}
    answered = Reply(headers=kind, body=json.dumps(ANSWER).encode())
    output = tmp_path / "out.jsonl"
    with scripted_service(answered, answered, interrupt) as service:
        done = medmoe("batch", folder, output, "--question", "What?", "--concurrency", 1, url=service.url)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == f"interrupted: 2 of {IMAGES} lines are answered; run again to continue"
    assert output.read_bytes().count(b"\n") == 2


def test_images_that_come_later_are_asked_about_alone(
    medmoe: Medmoe, server: ServerProcess, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    medmoe("batch", folder, output, "--question", "What?", url=server.url)
    before = lines(output)
    (folder / "00a.png").write_bytes(image_bytes(shade=200))
    done = medmoe("batch", folder, output, "--question", "What?", "--json", url=server.url)
    assert json.loads(done.stdout) == {"lines": IMAGES + 1, "asked": 1, "errors": 0}
    after = lines(output)
    assert [line for line in after if line["image"] != "00a.png"] == before
    assert [line["image"] for line in after] == sorted(line["image"] for line in after)
    medmoe("batch", folder, output, "--label", "CT", "--label", "MRI", url=server.url)
    both = lines(output)
    assert both[: len(after)] == after
    assert all(line["labels"] == ["CT", "MRI"] for line in both[len(after) :])
    assert len(both) == 2 * (IMAGES + 1)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_another_image_of_the_same_name_never_gets_the_first_ones_answer(
    medmoe: Medmoe, server: ServerProcess, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out.{suffix}"
    ask = (output, "--question", "What?", "--json")
    for study, shade in (("first", 50), ("second", 200)):
        (tmp_path / study).mkdir()
        (tmp_path / study / "IM0001.png").write_bytes(image_bytes(shade=shade))
        (tmp_path / study / "IM0002.png").write_bytes(image_bytes(shade=0))
        done = medmoe("batch", tmp_path / study, *ask, url=server.url)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"lines": 2, "asked": 1, "errors": 0}
    assert "answers about other images of the same name; asked again: 1" in done.stderr
    again = medmoe("batch", tmp_path / "second", *ask, url=server.url)
    assert json.loads(again.stdout) == {"lines": 2, "asked": 0, "errors": 0}
    digest = hashlib.sha256(image_bytes(shade=200)).hexdigest()
    assert output.read_text().count(digest) == 1
    (tmp_path / "second" / "IM0001.png").unlink()
    gone = medmoe("batch", tmp_path / "second", *ask, url=server.url)
    assert json.loads(gone.stdout) == {"lines": 1, "asked": 0, "errors": 0}
    assert output.read_text().count(digest) == 1


def write(path: Path, *records: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_file_of_lines_says_what_each_is_asked(medmoe: Medmoe, server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_bytes())
    (tmp_path / "ct").write_bytes(dicom(gradient((40, 48)), RescaleSlope=1, RescaleIntercept=0))
    source = write(
        tmp_path / "in.jsonl",
        {"image": "a.png", "question": "Which organ is this?", "max_tokens": 3, "answer": "gold", "id": 7},
        {"image": "ct", "labels": ["CT", "MRI"], "window": "lung"},
        {"image": "ct", "labels": ["CT", "MRI"], "mode": "multi_label", "question": None},
        {"image": "a.png"},
        {"image": "a.png"},
    )
    done = medmoe("batch", source, tmp_path / "out.jsonl", "--question", "What?", "--min-confidence", 1, url=server.url)
    assert done.returncode == 0, done.stderr
    assert "not sent: answer" in done.stderr
    first, second, third, fourth, fifth = lines(tmp_path / "out.jsonl")
    assert (first["id"], first["result"]["finish_reason"], first["result"]["abstained"]) == ("7", "length", True)
    assert second["result"]["mode"] == "likelihood"
    assert second["result"]["provenance"]["rendering"]["windows"][0]["centre"] == -600
    assert [one["label"] for one in third["result"]["probabilities"]] == ["CT", "MRI"]
    assert fourth["question"] == "What?"
    assert fourth["key"] != fifth["key"]
    assert fourth["result"] == fifth["result"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("no JSON", "line 2: not JSON"),
        ("[]", "line 2: not a JSON object"),
        ('{"question": "What?"}', "line 2: image is missing"),
        ('{"image": 3, "question": "What?"}', "line 2: image is no text"),
        ('{"image": "a.png"}', "line 2: neither question nor labels"),
        ('{"image": "a.png", "labels": "CT"}', "line 2: labels is no list"),
        ('{"image": "a.png", "labels": ["CT"], "max_tokens": 3}', "line 2: max_tokens is not for a classification"),
        ('{"image": "a.png", "question": "What?", "mode": "choice"}', "line 2: mode is not for a question"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_asked(
    medmoe: Medmoe, tmp_path: Path, line: str, problem: str
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(f'{{"image": "a.png", "question": "What?"}}\n{line}\n')
    with scripted_service(Reply(status=500)) as service:
        done = medmoe("batch", source, tmp_path / "out.jsonl", url=service.url)
        assert not service.asked
    assert done.returncode == 1
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_errors_are_lines_and_are_asked_again_when_that_is_wanted(
    medmoe: Medmoe, server: ServerProcess, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out.{suffix}"
    for name in ("a", "c"):
        (tmp_path / f"{name}.png").write_bytes(image_bytes())
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    records = [{"image": f"{name}.png", "question": "What?"} for name in ("a", "b", "c", "missing")]
    source = write(tmp_path / "in.jsonl", *records)
    done = medmoe("batch", source, output, url=server.url)
    assert done.returncode == 1
    assert f"2 of 4 lines have errors, which {output} names" in done.stderr.splitlines()[-1]
    codes = {"b.png": "unreadable_image", "missing.png": "invalid_input"}
    if suffix == "jsonl":
        assert {line["image"]: line["error"]["code"] for line in lines(output) if line["error"]} == codes
        assert all((line["result"] is None) == (line["error"] is not None) for line in lines(output))
    else:
        rows = list(csv.DictReader(output.open()))
        assert {row["image"]: row["error_code"] for row in rows if row["error_code"]} == codes
        assert [bool(row["answer"]) for row in rows] == [True, False, True, False]
    before = output.read_bytes()
    assert medmoe("batch", source, output, url=server.url).returncode == 1
    assert output.read_bytes() == before
    for name in ("b", "missing"):
        (tmp_path / f"{name}.png").write_bytes(image_bytes())
    done = medmoe("batch", source, output, "--retry-errors", "--json", url=server.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"lines": 4, "asked": 2, "errors": 0}
    images = [line["image"] for line in (lines(output) if suffix == "jsonl" else csv.DictReader(output.open()))]
    assert images == ["a.png", "b.png", "c.png", "missing.png"]


def test_a_service_that_is_gone_ends_the_run_and_blames_no_line(medmoe: Medmoe, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_bytes())
    source = write(tmp_path / "in.jsonl", *({"image": "a.png", "question": f"{number}?"} for number in range(3)))
    with scripted_service(refusal(401, "invalid_api_key", type_="authentication_error")) as service:
        done = medmoe("batch", source, tmp_path / "out.jsonl", url=service.url)
    assert done.returncode == 1
    assert "invalid_api_key" in done.stderr
    assert "0 of 3 lines are answered; run again to continue" in done.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    "arguments", [("none", "out.jsonl", "--question", "?"), (".", "out.txt", "--question", "?"), (".", "out.csv")]
)
def test_wrong_usage_has_a_status_of_its_own(
    medmoe: Medmoe, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(image_bytes())
    monkeypatch.chdir(tmp_path)
    assert medmoe("batch", *arguments, url="http://127.0.0.1:1").returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
