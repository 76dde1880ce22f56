"""`medmoe ask | classify | stats | bench` as a person runs them, against the real server in a process of its own."""

import errno
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medmoe.client import BadRequest, Client, Delta, VqaAnswer
from medmoe.client.answers.render import RenderedImage
from medmoe.server.auth.key_file import new_key
from tests.integration.conftest import Medmoe, image_bytes
from tests.support.images.dicom_files import dicom, gradient
from tests.support.service.client_answer import ANSWER
from tests.support.service.scripted_service import Reply, refusal, scripted_service
from tests.support.service.server_process import ServerProcess, server_process

pytestmark = pytest.mark.timeout(300)

QUESTION = "Which organ is this?"
LABELS = ("CT", "MRI", "X-ray")
KEY, KEY_LINE = new_key("ward-7")
METADATA = {
    "service": "0", "engine": "fake", "engine_version": None, "model": "m", "weights_sha256": None,
    "dtype": None, "adapter_sha256": None, "config_sha256": "0", "calibrated": [], "licence": "",
    "expert_domains": [], "intended_use": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY_LINE)
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    shutil.copytree(checkpoint, checkpoints / "next")
    settings = {
        "MEDMOE_MODEL": str(checkpoint),
        "MEDMOE_ENGINE": "fake",
        "MEDMOE_API_KEYS": str(keys),
        "MEDMOE_CHECKPOINTS_DIR": str(checkpoints),
    }
    with server_process(settings=settings) as server:
        server.wait_ready(300)
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "DOE^JANE.png"
    path.write_bytes(image_bytes())
    return path


def failed(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The one line that it ended with."""
    assert done.returncode == status, done
    lines = done.stderr.strip().splitlines()
    assert status != 1 or len(lines) == 1, done.stderr
    return lines[-1]


def test_the_blocking_client_speaks_to_the_real_server(server: ServerProcess, file: Path) -> None:
    with Client(server.url, api_key=KEY) as client:
        answer = client.ask(file, QUESTION)
        *pieces, last = client.stream(file, QUESTION)
        assert isinstance(last, VqaAnswer)
        assert last.answer == answer.answer == "".join(one.text for one in pieces if isinstance(one, Delta))
        assert len(pieces) > 1
        assert client.classify(file, LABELS).label in LABELS
        assert client.classify(file, LABELS, mode="choice").agreement <= 1
        assert client.router_stats().requests >= 3
        assert client.metadata().engine == "fake"
        assert client.ready().status == "ready"


def test_an_image_that_is_too_large_is_refused_once_and_with_the_reason(server: ServerProcess) -> None:
    pauses: list[float] = []
    with Client(server.url, api_key=KEY, sleep=pauses.append) as client, pytest.raises(BadRequest) as raised:
        client.ask(bytes(65 * 2**20), QUESTION)
    assert (raised.value.status, raised.value.code) == (413, "body_too_large")
    assert not pauses


def test_ask_prints_the_answer_and_how_sure_it_is(medmoe: Medmoe, server: ServerProcess, file: Path) -> None:
    with Client(server.url, api_key=KEY) as client:
        answer = client.ask(file, QUESTION)
    assert answer.confidence is not None
    done = medmoe("ask", file, QUESTION, "--min-confidence", 1, url=server.url, key=KEY)
    assert (done.returncode, done.stdout) == (0, f"{answer.answer}\n")
    assert f"confidence {answer.confidence.value:.3f} (the model's own" in done.stderr
    assert "ABSTAINED" in done.stderr
    streamed = medmoe("ask", "-", QUESTION, "--stream", url=server.url, key=KEY, given=file.read_bytes())
    assert streamed.stdout == done.stdout
    assert "ABSTAINED" not in streamed.stderr


def test_ask_in_json_is_the_services_answer(medmoe: Medmoe, server: ServerProcess, tmp_path: Path) -> None:
    values = gradient((40, 48))
    (tmp_path / "ct").write_bytes(dicom(values, PatientName="DOE^JANE", RescaleSlope=1, RescaleIntercept=0))
    options = ["--window", "lung", "--pixels-only", "--json", "--routing"]
    done = medmoe("ask", tmp_path / "ct", QUESTION, *options, url=server.url, key=KEY)
    answer = VqaAnswer.model_validate_json(done.stdout)
    assert answer.provenance.rendering.windows[0].centre == -600
    assert answer.routing is not None
    assert done.stderr == ""
    lines = medmoe("ask", tmp_path / "ct", QUESTION, "--json", "--stream", url=server.url, key=KEY).stdout.splitlines()
    assert all(json.loads(line)["delta"] for line in lines[:-1])
    assert json.loads(lines[-1])["answer"] == "".join(json.loads(line)["delta"] for line in lines[:-1])


@pytest.mark.parametrize("mode", ["likelihood", "choice", "multi_label"])
def test_classify_prints_the_likeliest_first(medmoe: Medmoe, server: ServerProcess, file: Path, mode: Any) -> None:
    with Client(server.url, api_key=KEY) as client:
        found = client.classify(file, LABELS, mode=mode)
    done = medmoe("classify", file, *LABELS, "--mode", mode, url=server.url, key=KEY)
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split() for line in done.stdout.splitlines()]
    assert header[:2] == ["label", "probability"]
    ordered = sorted(found.probabilities, key=lambda one: -one.probability)
    assert [row[:2] for row in rows] == [[one.label, f"{one.probability:.3f}"] for one in ordered]
    document = json.loads(medmoe("classify", file, *LABELS, "--mode", mode, "--json", url=server.url, key=KEY).stdout)
    assert document["probabilities"] == found.model_dump(mode="json")["probabilities"]


def test_stats_is_a_table_of_layers_and_experts(medmoe: Medmoe, server: ServerProcess, file: Path) -> None:
    medmoe("ask", file, QUESTION, "--modality", "MRI", url=server.url, key=KEY)
    done = medmoe("stats", "--json", url=server.url, key=KEY)
    layers = json.loads(done.stdout)["overall"]
    title, header, *rows = medmoe("stats", "--window", 600, url=server.url, key=KEY).stdout.splitlines()
    assert title.startswith("tiny: ")
    assert header.split()[:2] == ["layer", "tokens"]
    assert [row.split()[0] for row in rows] == [str(layer["layer"]) for layer in layers]
    shares = [f"{100 * expert['load_share']:.1f}" for expert in layers[0]["experts"]]
    assert rows[0].split()[2 : 2 + len(shares)] == shares
    by_kind = medmoe("stats", "--by", "kind", url=server.url, key=KEY).stdout
    assert all(f"\n{kind}\n" in by_kind for kind in ("image", "question", "answer"))
    assert "\nMRI\n" in medmoe("stats", "--by", "modality", url=server.url, key=KEY).stdout


def test_bench_counts_what_it_asked(medmoe: Medmoe, server: ServerProcess, file: Path) -> None:
    done = medmoe("bench", "--clients", "1,2", "--seconds", 0.5, "--json", url=server.url, key=KEY)
    found = json.loads(done.stdout)
    assert found["service"]["engine"] == "fake"
    assert [level["load"] for level in found["levels"]] == ["c=1", "c=2"]
    for level in found["levels"]:
        assert level["outcomes"] == {"answered": level["requests"]}
        assert level["requests"] >= 1
        assert 0 < level["first_p50"] <= level["p50"] <= level["p90"] <= level["p99"]
        assert level["answered_per_second"] > 0
        assert level["tokens_per_second"] > level["answered_per_second"]
    table = medmoe("bench", "--rate", "20", "--seconds", 0.5, "--image", file, url=server.url, key=KEY)
    header, row = table.stdout.splitlines()
    assert header.split("  ")[0] == "load"
    assert row.startswith("20/s")
    assert "answered: " in row


def test_bench_does_not_hide_refusals(medmoe: Medmoe) -> None:
    refused = refusal(429, "overloaded", type_="overloaded_error", **{"Retry-After": "3600"})
    answer = json.dumps(ANSWER).encode()
    replies = (Reply(body=json.dumps(METADATA).encode()), Reply(body=answer), refused)
    with scripted_service(*replies) as service:
        done = medmoe("bench", "--clients", "1", "--seconds", 0.3, "--noise-images", 1, "--json", url=service.url)
    (level,) = json.loads(done.stdout)["levels"]
    assert level["outcomes"] == {"429 overloaded": level["requests"]}
    assert level["answered_per_second"] == 0
    assert level["p50"] is None


def test_bench_that_is_interrupted_prints_the_levels_that_are_finished(medmoe: Medmoe) -> None:
    inside: list[str] = []
    interrupted = threading.Lock()

    def interrupt(path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        inside.append(path)
        time.sleep(0.05)
        # Two at once are those of the second level.
        if len(inside) == 1:
            inside.clear()
            return refusal(429, "overloaded", type_="overloaded_error")
        if interrupted.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
        return Reply(hang=True)

    replies = (Reply(body=json.dumps(METADATA).encode()), Reply(body=json.dumps(ANSWER).encode()), interrupt)
    with scripted_service(*replies) as service:
        done = medmoe("bench", "--clients", "1,2", "--seconds", 0.3, "--noise-images", 1, "--json", url=service.url)
    assert done.returncode == 130
    assert done.stderr == "interrupted: 1 of 2 levels are measured\n"
    assert [level["load"] for level in json.loads(done.stdout)["levels"]] == ["c=1"]


def test_decide_prints_an_answer_for_each_question(medmoe: Medmoe, server: ServerProcess, file: Path) -> None:
    asked = ("--predicate", "Is it?", "--choice", "Which? | CT | MRI", "--score", "How? | a bit | a lot")
    done = medmoe("decide", file, *asked, "--min-label-mass", "0", url=server.url, key=KEY)
    assert done.returncode == 0, done.stderr
    _, predicate, choice, score = done.stdout.splitlines()
    assert predicate.split()[:3] in (["Is", "it?", "yes"], ["Is", "it?", "no"])
    assert choice.split()[1] in ("CT", "MRI")
    assert "(score " in score


def test_render_writes_a_folder_of_dicom_files_as_png_once_and_names_what_is_refused(
    medmoe: Medmoe, server: ServerProcess, tmp_path: Path
) -> None:
    source, output = tmp_path / "dicoms", tmp_path / "pngs"
    for label in ("mass", "normal"):
        (source / label).mkdir(parents=True)
        (source / label / "1.dcm").write_bytes(dicom(gradient()))
    (source / "mass" / "2.dcm").write_bytes(dicom(gradient())[:-200])
    done = medmoe("render", source, output, url=server.url, key=KEY)
    assert done.returncode == 1
    assert "2 written, 0 kept, 1 refused" in done.stdout
    assert "2.dcm" in done.stderr
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*.png")) == [
        "mass/1.png",
        "normal/1.png",
    ]
    with Client(server.url, api_key=KEY) as client:
        assert same_png(output / "mass" / "1.png", client.render(source / "mass" / "1.dcm"))
    (source / "mass" / "2.dcm").unlink()
    again = medmoe("render", source, output, url=server.url, key=KEY)
    assert again.returncode == 0, again.stderr
    assert "0 written, 2 kept, 0 refused" in again.stdout
    # Another study has a file of this name.
    shown = (output / "mass" / "1.png").read_bytes()
    times = (source / "mass" / "1.dcm").stat()
    (source / "mass" / "1.dcm").write_bytes(dicom(gradient()[::-1]))
    os.utime(source / "mass" / "1.dcm", ns=(times.st_atime_ns, times.st_mtime_ns))
    other = medmoe("render", source, output, url=server.url, key=KEY)
    assert "1 written, 1 kept, 0 refused" in other.stdout
    assert (output / "mass" / "1.png").read_bytes() != shown
    (source / "mass" / "1.dcm").write_bytes(dicom(gradient())[:-200])
    refused = medmoe("render", source, output, url=server.url, key=KEY)
    assert "0 written, 1 kept, 1 refused" in refused.stdout
    assert not (output / "mass" / "1.png").exists()


def same_png(file: Path, rendered: RenderedImage) -> bool:
    """Whether a PNG holds the pixels and, but for one text, nothing beside what the service has sent."""
    sent = Image.open(io.BytesIO(b64decode(rendered.image.partition(",")[2])))
    with Image.open(file) as written:
        told = written.text.pop("medmoe-render")
        return written.info.keys() - {"medmoe-render"} == sent.info.keys() and (
            len(told) == 129 and written.tobytes() == sent.tobytes()
        )


def test_render_writes_anew_what_was_rendered_with_other_options(
    medmoe: Medmoe, server: ServerProcess, tmp_path: Path
) -> None:
    source, output = tmp_path / "dicoms", tmp_path / "pngs"
    source.mkdir()
    (source / "1.dcm").write_bytes(dicom(gradient()))
    (source / "2.png").write_bytes(image_bytes())
    first = medmoe("render", source, output, url=server.url, key=KEY)
    assert "2 written, 0 kept, 0 refused" in first.stdout, first
    shown = (output / "1.png").read_bytes()
    done = medmoe("render", source, output, "--window", "0/1", url=server.url, key=KEY)
    # A PNG has no window: the one of before would be of other options.
    assert (done.returncode, "1 written, 0 kept, 1 refused" in done.stdout) == (1, True), done
    assert (output / "1.png").read_bytes() != shown
    assert not (output / "2.png").exists()
    (source / "2.png").unlink()
    again = medmoe("render", source, output, "--window", "0/1", url=server.url, key=KEY)
    assert "0 written, 1 kept, 0 refused" in again.stdout


def test_render_goes_on_after_a_png_that_cannot_be_written(
    medmoe: Medmoe, server: ServerProcess, tmp_path: Path
) -> None:
    source, output = tmp_path / "dicoms", tmp_path / "pngs"
    source.mkdir()
    longest, too_long = "a" * 251, "b" * 255
    for name in (longest, too_long, "c.dcm", "d.dcm"):
        (source / name).write_bytes(dicom(gradient()))
    (output / "c.png").mkdir(parents=True)
    done = medmoe("render", source, output, url=server.url, key=KEY)
    assert (done.returncode, "2 written, 0 kept, 2 refused" in done.stdout) == (1, True), done
    assert f"{source / too_long}: {output / too_long}.png cannot be written: File name too long" in done.stderr
    assert f"{source / 'c.dcm'}: {output / 'c.png'} cannot be written: Is a directory" in done.stderr
    assert sorted(path.name for path in output.iterdir()) == [f"{longest}.png", "c.png", "d.png"]


def test_two_runs_of_render_write_one_folder(
    medmoe: Medmoe, server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dicoms").mkdir()
    (tmp_path / "dicoms" / "a").write_bytes(dicom(gradient()))
    write, output = Path.write_bytes, tmp_path / "pngs"
    started, others = threading.Event(), list[subprocess.CompletedProcess[str]]()

    def meanwhile(path: Path, png: bytes) -> int:
        written = write(path, png)
        if not started.is_set():
            started.set()
            others.append(medmoe("render", tmp_path / "dicoms", output, url=server.url, key=KEY))
        return written

    monkeypatch.setattr(Path, "write_bytes", meanwhile)
    done = medmoe("render", tmp_path / "dicoms", output, url=server.url, key=KEY)
    assert (done.returncode, others[0].returncode) == (0, 0), (done, others)
    assert [path.name for path in output.iterdir()] == ["a.png"]


def test_render_ends_where_there_is_no_room(
    medmoe: Medmoe, server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dicoms").mkdir()
    for name in "abc":
        (tmp_path / "dicoms" / name).write_bytes(dicom(gradient()))

    def full(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    done = medmoe("render", tmp_path / "dicoms", tmp_path / "pngs", "--workers", 1, url=server.url, key=KEY)
    assert "a.png cannot be written: No space left on device" in failed(done)
    assert not list((tmp_path / "pngs").iterdir())


def test_render_goes_on_after_an_image_that_the_service_fails_on(medmoe: Medmoe, tmp_path: Path) -> None:
    source, output = tmp_path / "dicoms", tmp_path / "pngs"
    source.mkdir()
    for name in "abc":
        (source / name).write_bytes(dicom(gradient()))
    rendering = {"format": "DICOM", "colour": "MONOCHROME2", "frame": 0, "frames": 1, "steps": [], "windows": []}
    png = f"data:image/png;base64,{b64encode(image_bytes()).decode()}"
    answer = {"image": png, "width": 1, "height": 1, "rendering": rendering, "windowing": None}
    done = Reply(body=json.dumps(answer).encode())
    with scripted_service(done, refusal(500, "internal_error", type_="server_error"), done) as service:
        rendered = medmoe("render", source, output, "--workers", 1, url=service.url)
    assert (rendered.returncode, "2 written, 0 kept, 1 refused" in rendered.stdout) == (1, True), rendered
    assert sorted(path.name for path in output.iterdir()) == ["a.png", "c.png"]
    assert f"{source / 'b'}: No. [internal_error" in rendered.stderr
    with scripted_service(refusal(401, "invalid_api_key", type_="authentication_error")) as service:
        assert "invalid_api_key" in medmoe("render", source, output, url=service.url).stderr
        assert len(service.asked) == 1


def test_render_ends_at_once_when_it_is_interrupted(medmoe: Medmoe, tmp_path: Path) -> None:
    (tmp_path / "dicoms").mkdir()
    (tmp_path / "dicoms" / "a").write_bytes(dicom(gradient()))
    with scripted_service(Reply(hang=True)) as service:

        def interrupt() -> None:
            while not service.asked:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        begun = time.monotonic()
        done = medmoe("render", tmp_path / "dicoms", tmp_path / "pngs", "--timeout", 30, url=service.url)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
    assert time.monotonic() < begun + 20


def test_render_names_png_files_after_uids_leaves_out_what_is_no_image_and_writes_one_image_anew(
    medmoe: Medmoe, server: ServerProcess, tmp_path: Path
) -> None:
    source, output = tmp_path / "dicoms", tmp_path / "pngs"
    source.mkdir()
    for name in ("1.2.840.5", "1.2.840.6"):
        (source / name).write_bytes(dicom(gradient()))
    (source / "notes.txt").write_text("no image")
    done = medmoe("render", source, output, url=server.url, key=KEY)
    assert (done.returncode, sorted(path.name for path in output.iterdir())) == (0, ["1.2.840.5.png", "1.2.840.6.png"])
    assert "left out, because not images: notes.txt" in done.stderr
    one, full = source / "1.2.840.5", tmp_path / "one.png"
    assert medmoe("render", one, full, "--window", "0/1", url=server.url, key=KEY).returncode == 0
    full.chmod(0o600)
    assert medmoe("render", one, full, "--window", "full", url=server.url, key=KEY).returncode == 0
    assert stat.S_IMODE(full.stat().st_mode) == 0o600
    (tmp_path / "link.png").symlink_to(full)
    full.write_bytes(b"")
    assert medmoe("render", one, tmp_path / "link.png", "--window", "full", url=server.url, key=KEY).returncode == 0
    assert (tmp_path / "link.png").is_symlink()
    with Client(server.url, api_key=KEY) as client:
        assert same_png(full, client.render(one, window="full"))
    # The PNG of the same image outlives a refusal.
    assert medmoe("render", one, full, "--frame", "9", url=server.url, key=KEY).returncode == 1
    assert full.stat().st_size > 0
    for arguments, reason in (
        ((one, output), "is a folder"),
        ((source, full), "is no folder"),
        ((source / "3", full), "does not exist"),
        ((one, full / "below" / "a.png"), "cannot be written"),
    ):
        wrong = medmoe("render", *arguments, url=server.url, key=KEY)
        assert (wrong.returncode, reason in wrong.stderr) == (1, True), wrong.stderr


def test_no_command_replaces_what_it_asks_about(medmoe: Medmoe, tmp_path: Path) -> None:
    png, slices = tmp_path / "a.png", tmp_path / "series"
    png.write_bytes(image_bytes())
    slices.mkdir()
    for name in ("1.dcm", "2.dcm"):
        (slices / name).write_bytes(dicom(gradient()))
    (tmp_path / "link.png").symlink_to(png)
    shown = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with scripted_service(Reply(status=500)) as service:
        for arguments in (
            ("render", png, tmp_path / "link.png"),
            ("render", tmp_path, tmp_path),
            ("explain", png, QUESTION, "--overlay", png),
            ("ask", slices / "1.dcm", QUESTION, "--sr", slices / "1.dcm"),
            ("classify", slices / "1.dcm", *LABELS, "--sr", slices / "1.dcm"),
            ("series", slices, QUESTION, "--sr", slices / "2.dcm"),
            ("series", slices / "1.dcm", QUESTION, "--sr", slices / "1.dcm"),
        ):
            wrong = medmoe(*arguments, url=service.url)
            assert "would be lost" in wrong.stderr, arguments
            assert wrong.returncode in (1, 2)
        assert not service.asked
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == shown


def test_a_refused_image_does_not_cost_somebody_elses_png(
    medmoe: Medmoe, server: ServerProcess, tmp_path: Path
) -> None:
    source, output = tmp_path / "dicoms", tmp_path / "pictures"
    for folder in (source, output):
        folder.mkdir()
    (source / "a.dcm").write_bytes(dicom(gradient())[:-200])
    (output / "a.png").write_bytes(image_bytes())
    for arguments in ((source, output), (source / "a.dcm", output / "a.png")):
        assert medmoe("render", *arguments, url=server.url, key=KEY).returncode == 1
        assert (output / "a.png").read_bytes() == image_bytes()


def test_explain_prints_the_map_and_writes_it_over_the_image(
    medmoe: Medmoe, server: ServerProcess, file: Path, tmp_path: Path
) -> None:
    asked = ("--label", "CT", "--label", "MRI", "--target", "MRI", "--grid", 3)
    done = medmoe("explain", file, *asked, "--overlay", tmp_path / "map.png", url=server.url, key=KEY)
    assert done.returncode == 0, done.stderr
    answer, headers, *rows = done.stdout.splitlines()
    assert (answer, headers.split()) == ("MRI", ["row", "1", "2", "3"])
    document = json.loads(medmoe("explain", file, *asked, "--json", url=server.url, key=KEY).stdout)
    assert [[float(drop) for drop in row.split()[1:]] for row in rows] == [
        [round(one, 2) for one in cells] for cells in document["importance"]
    ]
    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.mode == "RGB"
    asked = (QUESTION, "--answer", "Left", "--grid", 2, "--json")
    assert json.loads(medmoe("explain", file, *asked, url=server.url, key=KEY).stdout)["answer"] == "Left"


@pytest.mark.parametrize(("options", "proposed"), [((), True), (("--contextual-calibration",), False)])
def test_a_low_label_mass_proposes_what_was_not_done(
    medmoe: Medmoe, server: ServerProcess, file: Path, options: tuple[str, ...], proposed: bool
) -> None:
    done = medmoe("classify", file, "the first label", "the second label", *options, url=server.url, key=KEY)
    assert "WARNING: the model finds none of these labels likely" in done.stderr
    assert ("--contextual-calibration" in done.stderr) == proposed


@pytest.mark.parametrize("command", [("ask", QUESTION), ("classify", *LABELS)])
def test_what_goes_wrong_is_one_line(
    medmoe: Medmoe, server: ServerProcess, file: Path, command: tuple[str, ...]
) -> None:
    name, *rest = command
    assert "none.png cannot be read" in failed(medmoe(name, file.parent / "none.png", *rest, url=server.url, key=KEY))
    line = failed(medmoe(name, file, *rest, "--window", "lung", url=server.url, key=KEY), status=2)
    assert "invalid_field (window)" in line
    line = failed(medmoe("classify", file, "CT", "x" * 300, url=server.url, key=KEY), status=2)
    assert "invalid_field (labels.1)" in line
    line = failed(medmoe(name, file, *rest, url=server.url, key="mm-wrong"))
    assert "invalid_api_key" in line
    assert "mm-wrong" not in line


def test_a_service_that_is_not_there_is_one_line(medmoe: Medmoe) -> None:
    with scripted_service(Reply(drop=True)) as service:
        pass
    line = failed(medmoe("stats", url=f"{service.url}/v1"))
    assert f"no connection to {service.url}:" in line
    assert "is the service running?" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask",),
        ("ask", "a.png"),
        ("ask", "a.png", "What?", "--nonsense"),
        ("ask", "a.png", "What?", "--routing"),
        ("ask", "a.png", "What?", "--url", "service"),
        ("classify", "a.png"),
        ("classify", "a.png", "CT"),
        ("explain", "a.png"),
        ("explain", "a.png", "What?", "--source", "pacs", "--study", "1", "--series", "1", "--instance", "1"),
        ("explain", "a.png", "--label", "CT"),
        ("explain", "a.png", "--label", "CT", "--label", "MRI", "--target", "PET"),
        ("explain", "a.png", "--label", "CT", "--label", "MRI", "--answer", "CT"),
        ("explain", "a.png", "What?", "--target", "CT"),
        ("explain", "a.png", "What?", "--answer", "CT", "--max-tokens", "3"),
        ("decide", "a.png"),
        ("decide", "a.png", "--choice", "Which? | CT"),
        ("decide", "a.png", "--predicate", "Is it?", "--source", "pacs"),
        ("classify", "a.png", "CT", "--mode", "nonsense"),
        ("series", "a.zip", "What?", "--mode", "choice"),
        ("series", "a.zip", "What?", "--contextual-calibration"),
        ("series", "a.zip", "What?", "--finding", "CT"),
        ("series", "a.zip", "--label", "CT", "--label", "MRI", "--max-tokens", "3"),
        ("series", "a.zip", "--label", "CT"),
        ("batch", "/tmp", "a.csv", "--question", "What?", "--mode", "choice"),
        ("batch", "/tmp", "a.csv", "--label", "CT", "--label", "MRI", "--max-tokens", "3"),
        ("batch", "/tmp", "a.csv", "--label", "CT"),
        ("batch", "/tmp", "a.csv", "--question", "What?", "--actors", "2"),
        ("stats", "--by", "nonsense"),
        ("stats", "--window", "x"),
        ("bench", "--clients", "0"),
        ("bench", "--clients", "1,x"),
        ("bench", "--rate", "-1"),
    ],
)
def test_wrong_usage_is_one_line_and_has_a_status_of_its_own(medmoe: Medmoe, arguments: tuple[str, ...]) -> None:
    done = medmoe(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f"(see medmoe {arguments[0]} --help)\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("decide", "--predicate", "Is it?"), "missing argument 'IMAGE'"),
        (("query", "--study", "1.2", "--limit", "3"), "--study and --limit cannot be used without SOURCE"),
        (("query", "pacs", "--study", "1.2", "--date", "20260101-"), "--date cannot be used with --study"),
        (("bench", "--rate", "2", "--clients", "1,8,32"), "--clients cannot be used with --rate"),
        (("bench", "--image", "a.png", "--noise-images", "64"), "--noise-images cannot be used with --image"),
        (("bench", "--image", "a.png", "--seed", "1"), "--seed cannot be used with --image and without --rate"),
        (("watch", "rules.toml", "--once", "--interval", "5"), "--interval cannot be used with --once"),
        (("watch", "rules.toml", "--dry-run", "--interval", "60"), "--interval cannot be used with --dry-run"),
        (
            ("checkpoint load", "new", "--min-agreement", "0.9", "--activate"),
            "--min-agreement cannot be used without --activate and --questions",
        ),
        (
            ("batch", "/tmp", "a", "--question", "What?", "--ray", "--token-file", "key"),
            "--token-file cannot be used with --ray and without --url",
        ),
        (("render", __file__, "a.jpg"), "a.jpg would be a PNG; name a file that ends in .png"),
        (("explain", "a.png", "What?", "--overlay", "map"), "map would be a PNG; name a file that ends in .png"),
    ],
)
def test_wrong_usage_is_named(medmoe: Medmoe, arguments: tuple[str, ...], reason: str) -> None:
    command, *rest = arguments
    done = medmoe(*command.split(), *rest)
    assert (done.returncode, done.stderr) == (2, f"error: {reason} (see medmoe {command} --help)\n")


def test_labels_in_one_argument_are_pointed_out(medmoe: Medmoe) -> None:
    assert "did you mean CT MRI X-ray?" in medmoe("classify", "a.png", "CT,MRI, X-ray").stderr


def test_a_key_file_is_read(medmoe: Medmoe, server: ServerProcess, file: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    done = medmoe("stats", "--json", "--token-file", tmp_path / "key", url=server.url)
    assert json.loads(done.stdout)["model"] == "tiny"
    assert "cannot be read" in failed(medmoe("stats", "--token-file", tmp_path / "none", url=server.url))


def test_an_image_unlike_training_is_said_to_be_one_and_may_be_allowed(medmoe: Medmoe, file: Path) -> None:
    flagged = ANSWER | {"unlike_training": {"score": 3.5, "threshold": 2.0, "flagged": True}}
    with scripted_service(Reply(body=json.dumps(flagged).encode())) as service:
        done = medmoe("ask", file, QUESTION, "--allow-unlike-training", url=service.url)
        assert "The image is unlike the training images" in done.stderr
        out = file.with_suffix(".jsonl")
        folder = file.with_name("images")
        folder.mkdir()
        (folder / "a.png").write_bytes(image_bytes())
        medmoe("batch", folder, out, "--question", QUESTION, "--allow-unlike-training", url=service.url)
        assert json.loads(out.read_text())["result"]["unlike_training"]["flagged"] is True
        assert len(service.asked) == 2
        assert all(b"allow_unlike_training" in body for _, _, body in service.asked)


def test_an_image_of_one_shade_is_refused_until_it_is_allowed(
    medmoe: Medmoe, server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDMOE_API_KEY", KEY)
    Image.new("L", (32, 32), 90).save(tmp_path / "plain.png")
    asked = ("ask", tmp_path / "plain.png", QUESTION)
    assert "allow_uniform" in failed(medmoe(*asked, url=server.url))
    assert medmoe(*asked, "--allow-uniform", url=server.url).returncode == 0


def test_words_of_a_service_cannot_act_on_the_terminal(medmoe: Medmoe, file: Path) -> None:
    answer = ANSWER | {"answer": "\x1b[2J\u202egone\nline"}
    with scripted_service(Reply(body=json.dumps(answer).encode())) as service:
        done = medmoe("ask", file, QUESTION, url=service.url)
        assert done.stdout == "\\x1b[2J\\u202egone\nline\n"
        assert medmoe("ask", file, QUESTION, "--json", url=service.url).stdout.isascii()


@pytest.mark.parametrize(
    ("source", "expected"), [((), "the service has no sources"), (("pacs",), "pacs lists nothing")]
)
def test_an_empty_list_is_told(medmoe: Medmoe, source: tuple[str, ...], expected: str) -> None:
    empty = {"object": "list", "data": []}
    with scripted_service(Reply(body=json.dumps(empty).encode())) as service:
        done = medmoe("query", *source, url=service.url)
    assert (done.returncode, done.stdout, expected in done.stderr) == (0, "", True), done.stderr


def test_an_operator_changes_the_checkpoint(server: ServerProcess, medmoe: Medmoe, file: Path, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text(
        json.dumps({"image": file.name, "question": QUESTION})
        + "\n"
        + json.dumps({"image": file.name, "labels": LABELS})
    )
    loading = medmoe("checkpoint", "load", "next", "--questions", tmp_path / "asked.jsonl", url=server.url, key=KEY)
    assert loading.returncode == 0, loading.stderr
    assert re.search("^standby +next +ready", loading.stdout, re.MULTILINE)
    # The fake engine's answers depend on the image alone.
    assert "2 of 2 questions compared, 100 % of the answers equal, 0 abstentions changed" in loading.stdout
    activated = medmoe("checkpoint", "activate", url=server.url, key=KEY).stdout
    assert re.search("^active +next +ready", activated, re.MULTILINE)
    back = json.loads(medmoe("checkpoint", "rollback", "--json", url=server.url, key=KEY).stdout)
    assert (back["standby"]["checkpoint"], back["standby"]["previous"]) == ("next", False)
    assert "standby" not in medmoe("checkpoint", "unload", url=server.url, key=KEY).stdout
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "broken.jsonl").write_text(json.dumps({"image": "broken.png", "question": QUESTION}))
    wanted = ("--questions", tmp_path / "broken.jsonl", "--activate", "--min-agreement", 0.9)
    differing = medmoe("checkpoint", "load", "next", *wanted, url=server.url, key=KEY)
    assert re.search("^standby +next +ready", differing.stdout, re.MULTILINE)
    assert "next is loaded and not activated" in failed(differing)
    medmoe("checkpoint", "unload", url=server.url, key=KEY)
    activated = medmoe("checkpoint", "load", "next", "--activate", url=server.url, key=KEY)
    assert (activated.returncode, activated.stderr) == (0, "")
    medmoe("checkpoint", "rollback", url=server.url, key=KEY)
    medmoe("checkpoint", "unload", url=server.url, key=KEY)
    assert failed(medmoe("checkpoint", "load", "nowhere", url=server.url, key=KEY)).startswith(
        "error: MEDMOE_CHECKPOINTS_DIR holds no checkpoint"
    )
