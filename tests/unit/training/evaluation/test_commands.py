"""The commands from end to end on a tiny checkpoint and made-up images."""

import hashlib
import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medmoe.model.errors import ConfigError
from medmoe.model.files.calibration import Calibration
from medmoe.model.files.calibration_binding import BoundTo
from medmoe.model.files.routing_reference import RoutingReference
from medmoe.model.files.weight_files import weights_sha256
from medmoe.training.data.errors import DataError
from medmoe.training.data.leakage.trained_images import TrainedImages, extend_trained_images, write_trained_images
from medmoe.training.evaluation.__main__ import app
from medmoe.training.evaluation.calibration.calibrate import app as calibrate_app
from medmoe.training.evaluation.evaluation_data import EvaluationData
from medmoe.training.evaluation.predict import server_predictor
from medmoe.training.evaluation.predict.predictors import LocalPredictor
from medmoe.training.evaluation.report import plots
from medmoe.training.evaluation.report.results import read_losses
from tests.support.checkpoints.tiny import save_tiny_checkpoint
from tests.support.service.client_answer import ANSWER

LABELS = ["CT", "MRI"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`organs`: three questions, one test image also in train. `kinds`: 48 validation images with labels."""
    root = tmp_path_factory.mktemp("data")
    questions = []
    for number, (split, shade) in enumerate((("train", 10), ("test", 10), ("test", 120))):
        fields = {"question": "What?", "answer": "CT", "answer_type": "closed", "question_type": "organ"}
        questions.append(fields | {"task": "vqa", "split": split, "shade": shade, "modality": LABELS[number % 2]})
    labelled = [
        {"task": "classification", "split": split, "shade": 3 * number, "label": LABELS[number % 2]}
        | {"label_set": LABELS, "modality": LABELS[number % 2]}
        for split, count in (("val", 48), ("test", 8))
        for number in range(count)
    ]
    for name, records in (("organs", questions), ("kinds", labelled)):
        (root / name / "images").mkdir(parents=True)
        for number, record in enumerate(records):
            record |= {"id": f"{name}/{number}", "image": f"images/{number}.png"}
            Image.new("L", (40, 24), int(record.pop("shade"))).save(root / name / "images" / f"{number}.png")  # type: ignore[call-overload]
        (root / name / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    return root


def labelled_folders(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        for number in range(4):
            path = root / name / LABELS[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (24, 24), 40 * number + 5 * seed).save(path)
    return root


def test_images_of_one_name_in_two_datasets_are_two_samples(tmp_path: Path) -> None:
    read = EvaluationData.read(labelled_folders(tmp_path, "here", "there"), ["here", "there"])
    assert len({sample.id for sample in read.samples}) == 8


def test_datasets_of_one_name_are_refused_before_anything_is_answered(tmp_path: Path) -> None:
    labelled_folders(tmp_path, "here/own", "there/own")
    with pytest.raises(
        DataError, match=r"there/own has the ids of another dataset, own/.*; read one of them at a time"
    ):
        EvaluationData.read(tmp_path, ["here/own", "there/own"])


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_tables_are_printed_and_everything_is_written(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    losses = tmp_path / "training.json"
    losses.write_text(json.dumps({"alignment": {"losses": [{"step": 1, "loss": 2.0}, {"step": 9, "loss": 1.0}]}}))
    output = tmp_path / "results"
    found = run(
        checkpoint, "--data", data, "--dataset", "organs", "--dataset", "kinds", "--max-tokens", 3, "--blank-images",
        "--output", output, "--training-report", losses,
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "| organs | majority baseline | 2 | 100.0" in found.output
    assert "| organs | question alone, image blanked baseline | 2 |" in found.output
    assert "1 of 10 samples share an image with train." in found.output

    report = json.loads((output / "report.json").read_text())
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert report["provenance"]["answered_by"]["weights_sha256"] == digest
    records = hashlib.sha256((data / "organs" / "records.jsonl").read_bytes()).hexdigest()
    assert report["provenance"]["data"][0]["records_sha256"] == records
    assert [section["n"] for section in report["sections"]] == [2, 8]
    assert len(report["outcomes"]) == 10
    assert set(report["routing"]["tokens"]) == set(LABELS)

    page = (output / "report.md").read_text()
    assert digest in page
    assert "- seed: `0`" in page
    figures = {path.name for path in output.glob("*.png")}
    assert figures == {
        "experts-by-modality.png",
        "training-loss.png",
        "reliability-organs-vqa.png",
        "reliability-kinds-classification.png",
        "risk-coverage-organs-vqa.png",
        "risk-coverage-kinds-classification.png",
    }
    for name in figures:
        assert f"]({name})" in page
        with Image.open(output / name) as image:
            assert np.ptp(np.asarray(image.convert("L"))) > 100


def test_the_weights_are_hashed_once(checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []

    def counted(directory: Path) -> str:
        hashed.append(directory)
        return weights_sha256(directory)

    monkeypatch.setattr("medmoe.training.evaluation.provenance.weights_sha256", counted)
    found = run(checkpoint, "--data", data, "--dataset", "organs", "--max-tokens", 1)
    assert found.exit_code == 0, found.output
    assert hashed == [checkpoint]


def test_without_matplotlib_the_report_is_whole_and_says_so(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = run(checkpoint, "--data", data, "--dataset", "kinds", "--output", tmp_path)
    assert found.exit_code == 0, found.output
    assert plots.MISSING in found.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md"}


def test_a_report_on_label_folders_has_their_digest(checkpoint: Path, tmp_path: Path) -> None:
    for number, folder in enumerate(("train/CT", "train/MRI", "test/CT", "test/MRI")):
        (tmp_path / "own" / folder).mkdir(parents=True)
        Image.effect_noise((40, 24), 50 + number).save(tmp_path / "own" / folder / "0.png")
    found = run(checkpoint, "--data", tmp_path, "--dataset", "own", "--output", tmp_path / "results")
    assert found.exit_code == 0, found.output
    assert "- own, test: 2 samples, records SHA-256 `" in (tmp_path / "results" / "report.md").read_text()


def test_a_service_is_asked_instead(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        provenance = {**ANSWER["provenance"], "weights_sha256": "a" * 64}
        confidence = {"value": 0.75, "calibrated": False}
        return httpx.Response(200, json=ANSWER | {"answer": "CT", "confidence": confidence, "provenance": provenance})

    transport = httpx.MockTransport(reply)
    monkeypatch.setattr(server_predictor, "AsyncClient", partial(server_predictor.AsyncClient, transport=transport))
    (tmp_path / "token").write_text("secret-token\n")
    found = run(
        "--url", "http://service", "--token-file", tmp_path / "token", "--data", data, "--dataset", "organs",
        "--output", tmp_path / "results",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "| organs | model | 2 | 100.0" in found.output
    assert {request.url.path for request in seen} == {"/v1/vqa"}
    assert {request.headers["authorization"] for request in seen} == {"Bearer secret-token"}
    text = (tmp_path / "results" / "report.json").read_text()
    assert "secret-token" not in text
    assert json.loads(text)["provenance"]["answered_by"]["weights_sha256"] == "a" * 64


@pytest.mark.parametrize("place", [[], ["CHECKPOINT", "--url", "http://service"]])
def test_one_place_to_ask_and_no_more(place: list[str], data: Path) -> None:
    found = run(*place, "--data", data, "--dataset", "organs")
    assert found.exit_code == 2
    assert "either CHECKPOINT or --url" in found.output


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["--url", "http://service", "--calibrated"], "--calibrated cannot be used with --url"),
        (["--url", "http://service", "--routing-reference"], "--routing-reference cannot be used with --url"),
        (["--url", "http://service", "--probe", "--features", "f"], "--probe and --features cannot be used with --url"),
        # Their defaults, but given.
        (["--url", "http://service", "--device", "cpu"], "--device cannot be used with --url"),
        (["--url", "http://service", "--batch-size", "16"], "--batch-size cannot be used with --url"),
        (["CHECKPOINT", "--concurrency", "8"], "--concurrency cannot be used with CHECKPOINT"),
        (["CHECKPOINT", "--token-file", "token"], "--token-file cannot be used with CHECKPOINT"),
        (["CHECKPOINT", "--features", "f"], "--features cannot be used without --probe"),
        (["CHECKPOINT", "--training-report", "r"], "--training-report cannot be used without --output"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], refused: str, data: Path) -> None:
    found = run(*arguments, "--data", data, "--dataset", "organs")
    assert found.exit_code == 2
    assert refused in " ".join(found.output.split())


def test_a_file_without_splits_is_not_its_own_train_split(checkpoint: Path, data: Path) -> None:
    items = [{"image": "organs/images/1.png", "question": "What?", "answer": "CT", "answer_type": "closed"}]
    (data / "mine.json").write_text(json.dumps(items))
    found = run(checkpoint, "--data", data, "--dataset", "mine.json", "--max-tokens", 3)
    assert found.exit_code == 0, found.output
    assert "majority baseline" not in found.output
    assert "0 of 1 samples share an image" in found.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--dataset", "absent"], "records.jsonl cannot be read"),
        (["--dataset", "organs", "--calibrated"], "no calibration"),
    ],
)
def test_what_is_wrong_is_said_and_fails(arguments: list[str], reason: str, checkpoint: Path, data: Path) -> None:
    found = run(checkpoint, "--data", data, *arguments)
    assert found.exit_code == 1
    assert reason in found.output


def test_calibrating_writes_the_file_that_evaluating_uses(data: Path, tmp_path: Path) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny")
    made = CliRunner().invoke(calibrate_app, [str(checkpoint), "--data", str(data), "--dataset", "kinds"])
    assert made.exit_code == 0, made.output
    assert ": temperature" in made.output
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    written = Calibration.of_weights(checkpoint, weights_sha256=digest)
    assert written is not None
    assert written.answers is None
    (fit,) = written.label_sets
    assert fit.bound_to is not None
    assert fit.fitted_on.datasets == ("kinds",)
    probabilities = []
    for options in ([], ["--calibrated"]):
        output = tmp_path / f"results{len(options)}"
        assert run(checkpoint, "--data", data, "--dataset", "kinds", "--output", output, *options).exit_code == 0
        report = json.loads((output / "report.json").read_text())
        outcomes = report["outcomes"]
        # Beside the model's own figures, unless those are the calibrated ones already.
        assert (report["sections"][0]["calibrated"] is None) == bool(options)
        assert ("kinds (classification), calibrated" in (output / "report.md").read_text()) == (not options)
        probabilities.append([list(row["probabilities"].values()) for row in outcomes])
    for raw, mapped in zip(*probabilities, strict=True):
        assert mapped == pytest.approx(fit.apply(raw))
        assert mapped != pytest.approx(raw)
    # A service in float32 applies no map that holds for bfloat16 alone.
    other = fit.model_copy(update={"bound_to": BoundTo(prompt_sha256=fit.bound_to.prompt_sha256, dtypes=("bfloat16",))})
    (checkpoint / "calibration.json").write_text(written.model_copy(update={"classification": (other,)}).to_json())
    assert run(checkpoint, "--data", data, "--dataset", "kinds", "--output", tmp_path / "other").exit_code == 0
    assert json.loads((tmp_path / "other" / "report.json").read_text())["sections"][0]["calibrated"] is None
    refused = run(checkpoint, "--data", data, "--dataset", "kinds", "--calibrated")
    assert refused.exit_code == 1
    assert "calibrate it with --dtype float32" in refused.output
    (checkpoint / "calibration.json").write_text(written.to_json())
    output = tmp_path / "contextual"
    options = ["--dataset", "kinds", "--contextual-calibration", "--output", output]
    assert run(checkpoint, "--data", data, *options).exit_code == 0
    # It was fitted to likelihoods as they are.
    assert json.loads((output / "report.json").read_text())["sections"][0]["calibrated"] is None
    assert "contextual_calibration: `True`" in (output / "report.md").read_text()


def test_the_routing_reference_is_what_the_service_will_read(data: Path, tmp_path: Path) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny")
    made = run(
        checkpoint, "--data", data, "--dataset", "organs", "--dataset", "kinds", "--max-tokens", 3, "--blank-images",
        "--routing-reference", "--output", tmp_path / "results",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "routing_reference.json" in made.output
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    found = RoutingReference.from_directory(checkpoint, weights_sha256=digest, moe_layers=(0, 2), num_experts=4)
    assert found is not None
    counted = found.counted_on
    assert (counted.datasets, counted.split, counted.samples) == (("organs", "kinds"), "test", 10)
    tokens = json.loads((tmp_path / "results" / "report.json").read_text())["routing"]["tokens"]
    for layer in found.layers:
        # Four image tokens a sample; the blanked images of the baseline are nobody's traffic.
        assert sum(layer.by_kind["image"]) == 40
        assert {name: list(counts) for name, counts in layer.by_modality.items()} == {
            name: layers[str(layer.layer)] for name, layers in tokens.items()
        }


def test_calibrating_on_too_little_says_so_before_it_answers(
    checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalPredictor, "predict", None)
    found = CliRunner().invoke(
        calibrate_app, [str(checkpoint), "--data", str(data), "--dataset", "kinds", "--limit", "30"]
    )
    assert found.exit_code == 1
    assert "too few" in found.output
    assert not (checkpoint / "calibration.json").exists()


@pytest.mark.parametrize(("trained", "said"), [(20, "left out: 20 of 48 samples"), (None, "trained on every one")])
def test_no_calibration_is_fitted_to_images_of_the_training(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: int | None, said: str
) -> None:
    monkeypatch.setattr(LocalPredictor, "predict", None)
    copy = Path(shutil.copytree(checkpoint, tmp_path / "tiny"))
    images = sorted((data / "kinds" / "images").iterdir())[:trained]
    manifest = tmp_path / "manifest.json"
    hashes = {hashlib.sha256(image.read_bytes()).hexdigest(): [] for image in images}
    manifest.write_text(json.dumps({"splits": {"train": {"sha256": hashes}}}))
    write_trained_images(copy, manifest=manifest)
    found = CliRunner().invoke(calibrate_app, [str(copy), "--data", str(data), "--dataset", "kinds"])
    assert found.exit_code == 1
    assert said in found.output
    assert not (copy / "calibration.json").exists()


def test_the_manifest_of_the_run_decides_what_is_in_train(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    arguments = [checkpoint, "--data", data, "--dataset", "organs", "--max-tokens", 3, "--manifest", manifest]
    for images, expected in (("0.png",), 1), (("2.png",), 1), ((), 0):
        hashes = {hashlib.sha256((data / "organs" / "images" / name).read_bytes()).hexdigest(): [] for name in images}
        manifest.write_text(json.dumps({"splits": {"train": {"sha256": hashes}}}))
        found = run(*arguments)
        assert found.exit_code == 0, found.output
        assert f"{expected} of 2 samples share an image with train." in found.output


def test_a_checkpoint_knows_the_images_that_it_was_trained_on(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "tiny"))
    manifest = tmp_path / "manifest.json"
    digest = hashlib.sha256((data / "organs" / "images" / "2.png").read_bytes()).hexdigest()
    manifest.write_text(json.dumps({"splits": {"train": {"sha256": {digest: [], "0" * 64: []}}}}))
    write_trained_images(copy, manifest=manifest)
    found = run(copy, "--data", data, "--dataset", "kinds", "--dataset", "organs", "--max-tokens", 3)
    assert found.exit_code == 0, found.output
    # The train split says 1, of the other image.
    assert "organs (vqa): 2 samples on 2 images; 1 of them on an image that is in train too" in found.output
    assert "kinds (classification): 8 samples on 8 images; 0 of them on an image that is in train too" in found.output
    listed = TrainedImages.read(copy)
    assert listed.images == 2
    assert digest in listed
    assert digest[::-1] not in listed
    save_tiny_checkpoint(tmp_path / "other", seed=1)
    further = data / "organs" / "images" / "0.png"
    extend_trained_images(tmp_path / "other", base=copy, images=[further])
    extended = TrainedImages.read(tmp_path / "other")
    assert extended.images == 3
    assert digest in extended
    assert hashlib.sha256(further.read_bytes()).hexdigest() in extended
    shutil.copyfile(copy / "trained_images.json", tmp_path / "other" / "trained_images.json")
    refused = run(tmp_path / "other", "--data", data, "--dataset", "organs")
    assert refused.exit_code == 1
    assert "other weights" in refused.output


@pytest.mark.parametrize(("change", "message"), [({"images": 3}, "3 times 5 bytes"), ({"hashes": "%"}, "not base64")])
def test_a_damaged_list_of_images_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    whole = TrainedImages.of_digests(["0" * 64], weights_sha256="1" * 64).model_dump() | change
    (tmp_path / "trained_images.json").write_text(json.dumps(whole))
    with pytest.raises(ConfigError, match=message):
        TrainedImages.read(tmp_path)


def test_labels_are_asked_in_words_that_training_never_used(checkpoint: Path, tmp_path: Path) -> None:
    labels = ["normal", "pneumonia"]
    records = [
        {"id": str(number), "image": f"{number}.png", "task": "classification", "split": split}
        | {"label": labels[number % 2], "label_set": labels}
        for number, split in enumerate(("train", "train", "test", "test"))
    ]
    (tmp_path / "lungs").mkdir()
    for number in range(4):
        Image.new("L", (40, 24), 40 * number).save(tmp_path / "lungs" / f"{number}.png")
    (tmp_path / "lungs" / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    arguments = [checkpoint, "--data", tmp_path, "--dataset", "lungs", "--output", tmp_path / "out"]
    found = run(*arguments, "--held-out-wording", 2)
    assert found.exit_code == 0, found.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert '"infection"' in json.dumps(report)
    assert '"pneumonia"' not in json.dumps(report)
    assert "| lungs | majority baseline | 2 | 50.0" in found.output


@pytest.mark.parametrize("text", ["[]", "no", '{"splits": {"train": {"sha256": [1]}}}', "[" * 100_000])
def test_a_file_that_is_no_manifest_is_refused(text: str, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    found = run(checkpoint, "--data", data, "--dataset", "organs", "--manifest", tmp_path / "manifest.json")
    assert found.exit_code == 1
    assert "is not the manifest of a training run" in found.output


@pytest.mark.parametrize("text", ["[1]", "no", '{"a": {"losses": [1]}}'])
def test_a_file_that_is_no_training_report_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"report\.json is not"):
        read_losses(path)


def test_a_probe_on_the_tower_stands_beside_the_answers(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "shades" / "images").mkdir(parents=True)
    records = []
    for number in range(48):
        split = ("train", "train", "val", "test")[number % 4]
        dark = number // 4 % 2
        Image.new("L", (40, 24), 30 + number if dark else 200 - number).save(
            tmp_path / "shades" / "images" / f"{number}.png"
        )
        record = {"id": f"shades/{number}", "task": "classification", "split": split, "modality": "CT"}
        record |= {"image": f"images/{number}.png", "label": LABELS[dark], "label_set": LABELS}
        records.append(record)
    (tmp_path / "shades" / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    features = tmp_path / "features"
    found = run(checkpoint, "--data", tmp_path, "--dataset", "shades", "--probe", "--features", features)
    assert found.exit_code == 0, found.output
    assert "| shades | linear probe on the tower baseline | 12 | 100.0" in found.output
    assert list(features.glob("*/index.json"))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Label folders that state no splits: 24 images of each label."""
    for number in range(48):
        label = tmp_path / "data" / "mine" / LABELS[number % 2]
        label.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 24), 5 * number).save(label / f"{number}.png")
    return tmp_path / "data"


def test_what_would_fail_at_the_end_is_found_before_the_model_is_asked(
    checkpoint: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalPredictor, "predict", None)
    (tmp_path / "file").write_text("x")
    found = run(checkpoint, "--data", folders, "--dataset", "mine", "--output", tmp_path / "file")
    assert (found.exit_code, "cannot be written" in found.output) == (1, True), found.output
    assert run(checkpoint, "--data", folders, "--dataset", "mine", "--seed", -1).exit_code == 2
    for number in (1, 3):
        (folders / "mine" / LABELS[1] / f"{number}.png").write_bytes(b"x")
    for command in (app, calibrate_app):
        found = CliRunner().invoke(command, [str(checkpoint), "--data", str(folders), "--dataset", "mine"])
        assert found.exit_code == 1
        assert "1.png is not an image that can be read: " in found.output
        assert "(and 1 more)" in found.output


def test_a_dataset_that_cannot_be_probed_is_named(checkpoint: Path, folders: Path) -> None:
    found = run(checkpoint, "--data", folders, "--dataset", "mine", "--probe")
    assert found.exit_code == 0, found.output
    assert "mine: no probe, which needs a train split with two labels or more" in found.output


def test_calibrating_on_a_dataset_without_splits_warns_of_evaluating_on_it(
    checkpoint: Path, folders: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "tiny"))
    found = CliRunner().invoke(calibrate_app, [str(copy), "--data", str(folders), "--dataset", "mine", "--conformal"])
    assert found.exit_code == 0, found.output
    assert "warning: mine does not state its splits" in found.output
    assert "also had" not in found.output


def test_calibrating_on_one_dataset_says_what_is_lost_of_an_earlier_one(
    checkpoint: Path, folders: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "tiny"))
    renamed = [f"{image},{image.parent.name} image" for image in sorted((folders / "mine").rglob("*.png"))]
    (folders / "other.csv").write_text("\n".join(["image,label", *renamed]))
    said = []
    for dataset in ("mine", "other.csv"):
        arguments = [str(copy), "--data", str(folders), "--dataset", dataset, "--conformal"]
        said.append(CliRunner().invoke(calibrate_app, arguments).output)
    assert "also had" not in said[0]
    assert "prediction sets of CT, MRI; to keep all, name the datasets of all in one command" in said[1]
