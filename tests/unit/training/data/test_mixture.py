"""A recipe's data entries as samples."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medmoe.training.config import DataConfig
from medmoe.training.data.errors import DataError
from medmoe.training.data.leakage.manifest import build_manifest
from medmoe.training.data.mixture import read_mixture
from medmoe.training.data.sample import Sample

DOMAINS = ("CT", "MRI", "X-ray")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    lines = []
    for number in range(9):
        Image.new("L", (4, 4), number).save(folder / f"{number}.png")
        record = {"id": f"set/{number}", "task": "vqa", "image": f"{number}.png", "split": "train"}
        lines.append(
            record | {"question": "What?", "answer": "this", "answer_type": "open", "modality": DOMAINS[number % 3]}
        )
        lines.append(lines[-1] | {"id": f"set/{number}b"})
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, lines)))
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    (folder / "talk.json").write_text(json.dumps([{"id": "t", "image": "0.png", "conversations": turns}]))
    return tmp_path


def load(root: Path, *entries: DataConfig, seed: int = 0) -> list[Sample]:
    return list(read_mixture(entries, root=root, domains=DOMAINS, seed=seed).samples)


def test_questions_come_as_they_lie_in_the_file(root: Path) -> None:
    assert len(load(root, DataConfig(dataset="set", source="vqa"))) == 18


def test_modality_asks_once_for_each_image_and_always_offers_the_truth(root: Path) -> None:
    samples = load(root, DataConfig(dataset="set", source="modality"))
    assert len(samples) == 9
    for sample in samples:
        assert sample.answer == sample.modality
        assert sample.answer in sample.labels
        assert 2 <= len(sample.labels) <= len(DOMAINS)


def test_modality_can_offer_every_domain(root: Path) -> None:
    entry = DataConfig(dataset="set", source="modality")
    some = load(root, entry)
    every = load(root, replace(entry, offer_all_domains=True))
    assert {sample.labels for sample in every} == {DOMAINS}
    assert {sample.labels for sample in some} != {DOMAINS}
    assert [sample.id for sample in every] == [sample.id for sample in some]


def test_modality_tells_images_of_one_file_name_apart(tmp_path: Path) -> None:
    known = {"question": "What?", "answer": "this", "q_lang": "en", "modality": "CT", "answer_type": "OPEN"}
    items = [known | {"qid": number, "img_name": f"xmlab{number}/source.jpg"} for number in range(3)]
    for item in items:
        (tmp_path / "slake" / "imgs" / str(item["img_name"])).parent.mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "slake" / "imgs" / str(item["img_name"]))
    (tmp_path / "slake" / "train.json").write_text(json.dumps(items))
    samples = load(tmp_path, DataConfig(dataset="slake", source="modality"))
    assert [sample.id for sample in samples] == [f"slake/modality/xmlab{number}/source.jpg" for number in range(3)]


def test_a_limit_draws_the_same_part_again(root: Path) -> None:
    entry = DataConfig(dataset="set", source="vqa", limit=5)
    assert load(root, entry) == load(root, entry)
    assert len(load(root, entry)) == 5
    assert load(root, entry) != load(root, entry, seed=1)


def test_a_llava_file_is_a_dataset_too(root: Path) -> None:
    (sample,) = load(root, DataConfig(dataset="set/talk.json", source="vqa"))
    assert (sample.question, sample.answer) == ("What?", "That.")
    (caption,) = load(root, DataConfig(dataset="set/talk.json", source="captions"))
    assert caption.kind == "caption"


@pytest.mark.parametrize(
    "entry",
    [
        DataConfig(dataset="nowhere", source="vqa"),
        DataConfig(dataset="set", source="captions"),
        DataConfig(dataset="set", source="classification"),
        DataConfig(dataset="set", source="vqa", split="val"),
    ],
    ids=["missing", "no captions", "no labels", "empty split"],
)
def test_an_entry_that_gives_nothing_stops_the_run(root: Path, entry: DataConfig) -> None:
    with pytest.raises(DataError):
        load(root, entry)


def test_one_bad_record_stops_the_run_and_is_named(root: Path) -> None:
    with (root / "set" / "records.jsonl").open("a") as file:
        file.write("\n{not json")
    with pytest.raises(DataError, match=r"records\.jsonl:19"):
        load(root, DataConfig(dataset="set", source="vqa"))


LABELS = ("no", "yes", "maybe")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """7 no, 4 yes, 2 maybe, and a set with one label alone."""
    for name, counts in {"three": (7, 4, 2), "one": (3, 0, 0)}.items():
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "0.png")
        known = {"task": "classification", "image": "0.png", "split": "train", "label_set": LABELS, "modality": "CT"}
        lines = [
            known | {"id": f"{label}/{number}", "label": label}
            for label, count in zip(LABELS, counts, strict=True)
            for number in range(count)
        ]
        (tmp_path / name / "records.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_balanced_takes_as_many_of_each_label_as_the_rarest_has(labelled: Path) -> None:
    entry = DataConfig(dataset="three", source="classification", balanced=True)
    samples = load(labelled, entry)
    assert Counter(sample.answer for sample in samples) == {"no": 2, "yes": 2, "maybe": 2}
    every = [sample.id for sample in load(labelled, replace(entry, balanced=False))]
    assert [sample.id for sample in samples] == [name for name in every if name in {s.id for s in samples}]


def test_balanced_draws_by_the_seed(labelled: Path) -> None:
    entry = DataConfig(dataset="three", source="classification", balanced=True)
    drawn = {tuple(sample.id for sample in load(labelled, entry, seed=seed)) for seed in range(5)}
    assert len(drawn) > 1
    assert load(labelled, entry, seed=3) == load(labelled, entry, seed=3)


def test_balancing_one_label_alone_takes_all_of_it(labelled: Path) -> None:
    assert len(load(labelled, DataConfig(dataset="one", source="classification", balanced=True))) == 3


def test_a_limit_counts_after_balancing_and_repeat_after_the_limit(labelled: Path) -> None:
    entry = DataConfig(dataset="three", source="classification", balanced=True, limit=4, repeat=3)
    seen = Counter(sample.id for sample in load(labelled, entry))
    assert sorted(seen.values()) == [3, 3, 3, 3]


def test_repeat_shows_every_sample_so_often(labelled: Path) -> None:
    entry = DataConfig(dataset="three", source="classification", repeat=2)
    seen = Counter(sample.id for sample in load(labelled, entry))
    assert len(seen) == 13
    assert set(seen.values()) == {2}


@pytest.mark.parametrize(
    "fields",
    [
        {"repeat": 0},
        {"repeat": -1},
        {"limit": 0},
        {"balanced": True},
        {"source": "captions", "balanced": True},
        {"source": "classification", "paraphrases": True},
        {"split": "test", "paraphrases": True},
    ],
    ids=str,
)
def test_an_entry_that_asks_for_nothing_or_contradicts_itself_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^set: "):
        DataConfig(**{"dataset": "set", "source": "vqa", **fields})


def test_paraphrases_of_a_dataset_without_any_are_refused(root: Path) -> None:
    with pytest.raises(DataError, match="no paraphrases"):
        load(root, DataConfig(dataset="set", source="vqa", paraphrases=True))


def test_paraphrases_reach_the_mixture(tmp_path: Path) -> None:
    (tmp_path / "rad" / "images").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "rad" / "images" / "a.jpg")
    known = {"image_name": "a.jpg", "answer": "No", "answer_type": "CLOSED", "phrase_type": "freeform"}
    record = known | {"qid": 1, "question": "Infarct?", "question_frame": "Is there an infarct?"}
    (tmp_path / "rad" / "VQA_RAD Dataset Public.json").write_text(json.dumps([record]))
    entry = DataConfig(dataset="rad", source="vqa")
    assert [sample.question for sample in load(tmp_path, entry)] == ["Infarct?"]
    both = load(tmp_path, replace(entry, paraphrases=True))
    assert [sample.question for sample in both] == ["Infarct?", "Is there an infarct?"]


@pytest.fixture
def vanished(root: Path) -> Path:
    """A conversation file as LLaVA-Med's: one figure vanished, one was cut off, one item has no image at all."""
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    images = {"good": "0.png", "gone": "gone.png", "cut": "cut.png", "text": None, "gone too": "gone2.png"}
    items = [{"id": name, "image": image, "conversations": turns} for name, image in images.items()]
    (root / "set" / "talk.json").write_text(json.dumps(items))
    whole = (root / "set" / "0.png").read_bytes()
    (root / "set" / "cut.png").write_bytes(whole[: len(whole) // 2])
    return root


TALK = DataConfig(dataset="set/talk.json", source="vqa")


def test_vanished_images_stop_a_run_by_default_and_are_named(vanished: Path) -> None:
    with pytest.raises(DataError, match=r"talk\.json:2: image file is missing \(id gone\)"):
        load(vanished, TALK)


def test_bad_records_can_be_left_out_and_are_counted_by_reason(
    vanished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = replace(TALK, bad_records="leave_out")
    with caplog.at_level(logging.WARNING):
        mixture = read_mixture([entry], root=vanished, domains=DOMAINS, seed=0)
    assert [sample.id for sample in mixture.samples] == ["good/0"]
    assert mixture.left_out == {
        "train set/talk.json vqa": {
            "image file is missing": 2,
            "text only: this version needs an image": 1,
            "file is no image, or only the beginning of one": 1,
        }
    }
    assert "2 bad records left out (image file is missing)" in caplog.text
    assert "id gone" in caplog.text


def test_what_is_left_out_stands_in_the_manifest(vanished: Path) -> None:
    mixture = read_mixture([replace(TALK, bad_records="leave_out")], root=vanished, domains=DOMAINS, seed=0)
    manifest = json.loads(build_manifest(mixture.samples, left_out=mixture.left_out).to_json())
    assert manifest["left_out"]["train set/talk.json vqa"]["image file is missing"] == 2
    assert manifest["splits"]["train"]["samples"] == 1


def test_nothing_is_said_of_records_that_are_all_good(root: Path) -> None:
    entry = DataConfig(dataset="set", source="vqa", bad_records="leave_out")
    assert read_mixture([entry], root=root, domains=DOMAINS, seed=0).left_out == {}


def test_a_dataset_of_bad_records_alone_is_still_refused(vanished: Path) -> None:
    (vanished / "set" / "0.png").unlink()
    with pytest.raises(DataError, match="no vqa samples"):
        load(vanished, replace(TALK, bad_records="leave_out"))


def test_test_images_of_another_dataset_can_be_kept_out_under_any_name(root: Path) -> None:
    (root / "tested").mkdir()
    with Image.open(root / "set" / "4.png") as image:
        image.save(root / "tested" / "renamed.bmp")
    record = {"id": "t", "task": "vqa", "image": "renamed.bmp", "split": "test", "question": "?", "answer": "this"}
    (root / "tested" / "records.jsonl").write_text(json.dumps(record | {"answer_type": "open"}))
    entry = DataConfig(dataset="set", source="vqa")
    every = load(root, entry)
    kept = load(root, replace(entry, without_images_of=("tested",)))
    assert [sample for sample in every if sample.image.name != "4.png"] == kept
    assert len(every) - len(kept) == 2


def kinds(root: Path, shares: tuple[int, ...]) -> Path:
    (root / "kinds").mkdir()
    lines = []
    for label, count in zip("abc", shares, strict=False):
        for number in range(count):
            Image.new("L", (4, 4), number).save(root / "kinds" / f"{label}{number}.png")
            record = {"id": f"kinds/{label}{number}", "task": "classification", "image": f"{label}{number}.png"}
            lines.append(record | {"split": "train", "label": label, "label_set": ["a", "b", "c"], "modality": "CT"})
    (root / "kinds" / "records.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def test_rarer_labels_can_be_there_as_often_as_the_most_frequent_one(tmp_path: Path) -> None:
    kinds(tmp_path, (6, 3, 2))
    samples = load(tmp_path, DataConfig(dataset="kinds", source="classification", even=True))
    assert Counter(sample.answer for sample in samples) == {"a": 6, "b": 6, "c": 6}
    assert len({sample.id for sample in samples}) == 11


def test_a_label_set_can_be_asked_in_other_words_beside_its_own(tmp_path: Path) -> None:
    kinds(tmp_path, (2, 2, 2))
    entry = DataConfig(dataset="kinds", source="classification", wordings=2, views=3)
    samples = load(tmp_path, entry)
    assert len(samples) == 18
    assert {sample.views for sample in samples} == {3}
    assert load(tmp_path, entry) == samples


@pytest.mark.parametrize(
    "wrong", [{"source": "vqa", "even": True}, {"source": "modality", "wordings": 1}, {"wordings": -1}]
)
def test_words_and_evenness_are_for_labels(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="label"):
        DataConfig(**({"dataset": "kinds", "source": "classification"} | wrong))


def test_distilled_labels_are_drawn_by_the_teacher_anew_for_each_copy(root: Path) -> None:
    lines = [
        {"id": f"set/{number}", "task": "classification", "image": f"{number}.png", "split": "train", "label": "a"}
        | {"label_set": ["a", "b"]}
        for number in range(9)
    ]
    (root / "set" / "records.jsonl").write_text("\n".join(map(json.dumps, lines)))
    entry = DataConfig(dataset="set", source="classification", distilled=200)
    asked: list[int] = []

    def teacher(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
        asked.append(len(samples))
        sure = {sample.id: {"a": 1.0, "b": 0.0} for sample in samples}
        return sure | {"set/3": {"a": 0.75, "b": 0.25}}

    drawn = [read_mixture([entry], root=root, domains=DOMAINS, seed=0, teacher=teacher) for _ in range(2)]
    assert drawn[0].samples == drawn[1].samples
    assert asked == [9, 9]
    answers = Counter((sample.id, sample.answer) for sample in drawn[0].samples)
    assert 30 <= answers["set/3", "b"] <= 70
    assert answers["set/3", "a"] + answers["set/3", "b"] == 200
    assert all(answers[f"set/{number}", "a"] == 200 for number in range(9) if number != 3)
    true = load(root, entry)
    assert [sample.id for sample in true] == [sample.id for sample in drawn[0].samples]
    assert {sample.answer for sample in true} == {"a"}


@pytest.mark.parametrize("entry", [{"source": "vqa"}, {"source": "classification", "split": "val"}])
def test_only_training_labels_are_distilled(entry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="distilled"):
        DataConfig(dataset="set", distilled=1, **entry)
