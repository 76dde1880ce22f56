"""LLaVA conversations: flattened turns, upstream's spellings, and items this version cannot use."""

import json
from pathlib import Path
from typing import Any

import pytest

from medmoe.training.data.errors import DatasetError
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.llava import read_llava


def turn(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


ITEM: dict[str, Any] = {"id": "x1", "image": "a.png", "conversations": turn("<image>\nWhat is it?", "CT")}


def read(tmp_path: Path, items: Any, *, captions: bool = False) -> ReadResult:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"pixels")
    (tmp_path / "b.png").write_bytes(b"outside")
    file = tmp_path / "train.json"
    file.write_text(json.dumps(items))
    return read_llava(file, images=tmp_path / "images", dataset="mix", split="train", captions=captions)


def test_marker_is_removed_and_the_rest_kept(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, [ITEM | {"modality": "CT"}]).samples
    assert (sample.id, sample.question, sample.answer, sample.modality) == ("x1/0", "What is it?", "CT", "CT")
    assert (sample.dataset, sample.split, sample.answer_type) == ("mix", "train", None)


def test_each_turn_becomes_a_sample(tmp_path: Path) -> None:
    item = ITEM | {"conversations": turn("<image>\nFirst?", "one") + turn("Second?", "two")}
    samples = read(tmp_path, [item]).samples
    assert [(sample.id, sample.question, sample.answer) for sample in samples] == [
        ("x1/0", "First?", "one"),
        ("x1/1", "Second?", "two"),
    ]
    assert samples[0].image == samples[1].image


@pytest.mark.parametrize(
    ("spelling", "meaning"), [("open", "open"), ("OPEN", "open"), ("close", "closed"), ("CLOSED", "closed")]
)
def test_upstream_spellings_of_answer_type(tmp_path: Path, spelling: str, meaning: str) -> None:
    assert read(tmp_path, [ITEM | {"answer_type": spelling}]).samples[0].answer_type == meaning


def test_llava_meds_misspelling_is_understood(tmp_path: Path) -> None:
    item = {"id": "x1", "image": "a.png", "conversatons": turn("<image>\nFirst?", "one") + turn("Second?", "two")}
    assert [sample.answer for sample in read(tmp_path, [item]).samples] == ["one", "two"]


def test_pair_id_stands_in_for_a_missing_id(tmp_path: Path) -> None:
    item = {key: value for key, value in ITEM.items() if key != "id"} | {"pair_id": "p7"}
    assert read(tmp_path, [item]).samples[0].id == "p7/0"


@pytest.mark.parametrize(
    ("fields", "modality"),
    [
        ({"domain": {"chest_xray": True, "mri": False}}, "X-ray"),
        ({"domain": {"ct_scan": True}}, "CT"),
        ({"domain": {"histology": True, "gross": True}}, "pathology"),
        ({"domain": {"mri": True, "ct_scan": True}}, None),
        ({"domain": {"mri": False}}, None),
        ({"domain": {"other": True}}, None),
        ({"domain": "radiology"}, None),
        ({"domain": {"mri": True}, "modality": "CT"}, "CT"),
    ],
)
def test_domain_is_the_modality_when_it_is_one_thing(
    tmp_path: Path, fields: dict[str, Any], modality: str | None
) -> None:
    assert read(tmp_path, [ITEM | fields]).samples[0].modality == modality


def test_list_of_one_image_is_one_image(tmp_path: Path) -> None:
    assert len(read(tmp_path, [ITEM | {"image": ["a.png"]}]).samples) == 1


def test_captions_lose_their_question(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, [ITEM], captions=True).samples
    assert (sample.kind, sample.answer) == ("caption", "CT")


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({key: value for key, value in ITEM.items() if key != "image"}, "text only"),
        (ITEM | {"image": ["a.png", "a.png"]}, "several images"),
        (ITEM | {"image": "../b.png"}, "leaves the dataset's folder"),
        (ITEM | {"image": "gone.png"}, "missing"),
        (ITEM | {"conversations": turn("<image>\nWhat?", "  ")}, "answer is blank"),
        (ITEM | {"conversations": turn("<image>", "CT")}, "question is blank"),
        (ITEM | {"conversations": turn("<image>\nWhat?", "CT")[:1]}, "without an answer"),
        (ITEM | {"conversations": turn("<image>\nWhat?", "CT")[::-1]}, "alternate"),
        (ITEM | {"answer_type": "multiple choice"}, "answer_type"),
        (ITEM | {"conversatons": ITEM["conversations"]}, "which one counts"),
        ("text", "not a JSON object"),
    ],
)
def test_bad_item_is_reported_with_its_place(tmp_path: Path, item: Any, reason: str) -> None:
    result = read(tmp_path, [ITEM | {"id": "ok"}, item])
    assert [sample.id for sample in result.samples] == ["ok/0"]
    (bad,) = result.bad
    assert (bad.file, bad.place) == ("train.json", 2)
    assert reason in bad.reason


def test_file_that_is_not_a_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="list"):
        read(tmp_path, {"id": "x1"})


@pytest.mark.parametrize("text", ["[{", "[" * 200_000, '{"a":' * 200_000], ids=["cut off", "lists", "objects"])
def test_file_cut_off_or_nested_too_deeply_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "deep.json").write_text(text)
    with pytest.raises(DatasetError, match="not JSON"):
        read_llava(tmp_path / "deep.json", images=tmp_path, dataset="mix", split="train")


@pytest.mark.parametrize(
    ("broken", "shown"),
    [
        ({"id": "a", "pair_id": "b"}, "a"),
        ({"pair_id": "b"}, "b"),
        ({"id": 7}, "7"),
        ({"id": "two\nlines\x1b[2J"}, "two?lines?[2J"),
        ({"id": "x" * 500}, "x" * 64 + "..."),
        ({"id": True}, None),
        ({"id": ["a"]}, None),
        ([], None),
    ],
    ids=["id", "pair_id", "number", "control characters", "long", "bool", "list", "no object"],
)
def test_a_report_names_a_broken_item_by_its_id_and_shows_no_more_than_a_line(
    tmp_path: Path, broken: Any, shown: str | None
) -> None:
    (bad,) = read(tmp_path, [broken]).bad
    assert bad.id == shown
    assert str(bad).endswith(f" (id {shown})" if shown else bad.reason)
