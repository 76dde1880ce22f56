"""Held-out images that are training images too, and the manifest that a run's data leave behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from medmoe.training.config import Split
from medmoe.training.data.__main__ import app
from medmoe.training.data.leakage.leaks import find_leaks
from medmoe.training.data.leakage.manifest import build_manifest
from medmoe.training.data.sample import Sample


def sample(image: Path, name: str, *, split: Split = "train", dataset: str = "d") -> Sample:
    return Sample(id=name, dataset=dataset, image=image, split=split, answer="CT", question="What?")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """a, b and c differ; copy is a's file, saved is a's pixels in another format, cut is half a file."""
    noise = Image.effect_noise((16, 16), 90)
    noise.save(tmp_path / "a.png")
    noise.convert("RGB").save(tmp_path / "saved.bmp")
    Image.new("L", (16, 16), 9).save(tmp_path / "b.png")
    Image.new("L", (8, 32), 9).save(tmp_path / "c.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:120])
    return tmp_path


def test_the_same_file_under_another_name_in_another_dataset_is_named(images: Path) -> None:
    held_out = [sample(images / f"{name}.png", f"t/{name}", split="val", dataset="e") for name in ("b", "copy")]
    held_out.append(sample(images / "copy.png", "t/copy2", split="val", dataset="e"))
    train = [sample(images / "c.png", "c"), sample(images / "a.png", "first"), sample(images / "a.png", "second")]
    (leak,) = find_leaks(train, held_out=held_out)
    assert (leak.samples, leak.dataset, leak.same) == (("t/copy", "t/copy2"), "e", "bytes")
    assert (leak.train_sample, leak.train_dataset, leak.train_image) == ("first", "d", images / "a.png")
    assert str(leak) == "t/copy and 1 more (e) shows first (d)"


def test_the_same_pixels_in_another_format_are_named(images: Path) -> None:
    train, test = [sample(images / "a.png", "a")], [sample(images / "saved.bmp", "s", split="test")]
    (leak,) = find_leaks(train, held_out=test)
    assert leak.same == "pixels"
    assert find_leaks(train, held_out=test, pixels=False) == []


def test_equal_bytes_in_another_shape_are_another_image(images: Path) -> None:
    held_out = [sample(images / "c.png", "c", split="test")]
    assert find_leaks([sample(images / "b.png", "b")], held_out=held_out) == []


def test_files_that_are_no_images_are_compared_by_their_bytes(images: Path) -> None:
    (images / "cut2.png").write_bytes((images / "cut.png").read_bytes())
    train = [sample(images / "cut.png", "c"), sample(images / "a.png", "a")]
    (leak,) = find_leaks(train, held_out=[sample(images / "cut2.png", "x", split="test")])
    assert leak.same == "bytes"


def test_manifest_counts_hashes_and_names_what_is_wrong(images: Path) -> None:
    samples = [
        sample(images / "a.png", "a/1"),
        sample(images / "a.png", "a/2"),
        sample(images / "b.png", "b"),
        sample(images / "saved.bmp", "s", split="test"),
        sample(images / "cut.png", "cut", split="test"),
        sample(images / "gone.png", "gone", split="val"),
        sample(images / "c.png", "b", split="test"),
    ]
    manifest = build_manifest(samples)
    content = json.loads(manifest.to_json())
    train = content["splits"]["train"]
    assert (train["samples"], train["images"], train["datasets"]) == (3, 2, {"d": 3})
    assert sorted(train["sha256"].values()) == [["a/1", "a/2"], ["b"]]
    assert content["unreadable"] == ["cut", "gone"]
    assert build_manifest(samples, pixels=False).unreadable == ("gone",)
    assert content["repeated_ids"] == ["d: b"]
    assert [leak["samples"] for leak in content["leaks"]] == [["s"]]
    assert str(images) not in manifest.to_json()


def test_the_same_data_in_another_order_give_the_same_splits(images: Path) -> None:
    samples = [sample(images / f"{name}.png", name) for name in ("a", "b", "c", "copy")]
    assert build_manifest(samples).to_json() == build_manifest(samples[::-1]).to_json()


def records(folder: Path, *rows: dict[str, Any]) -> None:
    known = {"task": "vqa", "question": "What?", "answer": "CT", "answer_type": "open"}
    (folder / "records.jsonl").write_text("\n".join(json.dumps(known | row) for row in rows))


def test_command_writes_the_manifest_and_names_the_leak(images: Path) -> None:
    records(
        images,
        {"id": "r/1", "image": "a.png", "split": "train"},
        {"id": "r/2", "image": "copy.png", "split": "val"},
        {"id": "r/3", "image": "gone.png", "split": "val"},
    )
    output = images / "manifest.json"
    arguments = ["--data", str(images.parent), "--dataset", images.name, "--output", str(output)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "in train, same bytes: r/2" in result.output
    assert "1 held-out images are in train" in result.output
    assert "image file is missing" in result.output
    assert json.loads(output.read_text())["splits"]["val"]["samples"] == 1
    assert CliRunner().invoke(app, [*arguments, "--strict"]).exit_code == 1


def test_command_wants_the_split_of_a_file_that_does_not_say_it(images: Path) -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
    (images / "talk.json").write_text(json.dumps([{"id": "t", "image": "a.png", "conversations": turns}]))
    arguments = ["--data", str(images), "--dataset"]
    refused = CliRunner().invoke(app, [*arguments, "talk.json"])
    assert refused.exit_code == 1
    assert "talk.json:train" in refused.output
    assert "test: 1 samples" in CliRunner().invoke(app, [*arguments, "talk.json:test"]).output
