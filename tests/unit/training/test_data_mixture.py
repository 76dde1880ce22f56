"""A recipe's data entries as samples."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from medmoe.training.config import DataConfig
from medmoe.training.data.errors import DataError
from medmoe.training.data.mixture import load_mixture
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
    return load_mixture(entries, root=root, domains=DOMAINS, seed=seed)


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
    every = load_mixture([replace(entry, offer_all_domains=True)], root=root, domains=DOMAINS, seed=0)
    assert {sample.labels for sample in every} == {DOMAINS}
    assert {sample.labels for sample in some} != {DOMAINS}
    assert [sample.id for sample in every] == [sample.id for sample in some]


def test_modality_tells_pictures_of_one_file_name_apart(tmp_path: Path) -> None:
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
