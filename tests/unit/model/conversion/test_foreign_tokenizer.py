"""A tokenizer that is broken, hostile or another model's ends in one sentence, soon and in little memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmoe.model.config import MedMoEConfig
from medmoe.model.conversion.converter import convert
from medmoe.model.conversion.options import Options
from medmoe.model.errors import CheckpointError, MedMoEError
from tests.support.checkpoints.upstream import TOWER_OPTIONS, Variant, upstream_tensors, write_upstream


def replacing(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
RULES = [
    ({"normalizer": replacing("", "x")}, "without a pattern"),
    ({"normalizer": {"type": "Sequence", "normalizers": [replacing("a", "aa")] * 30}}, "normalizer multiply"),
    ({"decoder": {"type": "Sequence", "decoders": [replacing("a", "aa")] * 30}}, "decoder multiply"),
    ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 30}}, "pre_tokenizer multiply"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "'Precompiled' is not supported"),
    ({"normalizer": {"type": "Lowercase"}}, "does not know the prompt's own words"),
    ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, "tokenizer"),
]
SETTINGS = [
    ("special_tokens_map.json", {"additional_special_tokens": 5}, "not a list"),
    ("special_tokens_map.json", {"additional_special_tokens": "abc"}, "not a list"),
    ("special_tokens_map.json", {"unk_token": "e"}, "part of ordinary text: e"),
    ("special_tokens_map.json", {"eos_token": "\ud800"}, "not valid Unicode"),
    ("added_tokens.json", {"\ud800": 330}, "not valid Unicode"),
    ("added_tokens.json", {"<a>": 330, "<b>": 330}, "'<a>' and '<b>' claim one id"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"5": "foo"}}, "does not map ids to tokens"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"9" * 5000: {"content": "x"}}}, "does not map ids to tokens"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"330": {"content": "<a>"}}}, "claim one id"),
]


@pytest.fixture
def refuse(tmp_path: Path) -> Callable[..., None]:
    def run(variant: Variant, change: Callable[[Path], object], match: str, **options: Any) -> None:
        write_upstream(tmp_path / "source", variant)
        change(tmp_path / "source")
        with pytest.raises(MedMoEError, match=match):
            convert(tmp_path / "source", tmp_path / "target", Options(**TOWER_OPTIONS | options))

    return run


@pytest.mark.parametrize(("fields", "match"), RULES, ids=[match for _, match in RULES])
def test_hostile_rules_are_refused(refuse: Callable[..., None], fields: dict[str, Any], match: str) -> None:
    def change(directory: Path) -> None:
        path = directory / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    refuse(Variant(backbone="llama"), change, match)


@pytest.mark.parametrize(("name", "content", "match"), SETTINGS, ids=[f"{n}-{m}" for n, _, m in SETTINGS])
def test_malformed_settings_are_named(refuse: Callable[..., None], name: str, content: object, match: str) -> None:
    refuse(Variant(), lambda directory: (directory / name).write_text(json.dumps(content)), match)


def test_merges_that_make_no_words_are_not_a_tokenizer(refuse: Callable[..., None]) -> None:
    refuse(Variant(), lambda directory: (directory / "merges.txt").write_text("#version: 0.2\n"), "never makes")


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"eos_token": ""}, "no ''.*--eos-token"),
        ({"pad_token": "<image>"}, "stands for the image.*--pad-token"),
        ({"pad_token": "\udcff"}, "tokenizer cannot be used"),
    ],
)
def test_a_token_that_cannot_be_one_is_refused(refuse: Callable[..., None], option: dict[str, str], match: str) -> None:
    refuse(Variant(), lambda directory: None, match, **option)


def test_far_more_rows_than_words_need_an_explicit_word(tmp_path: Path) -> None:
    tensors = upstream_tensors(Variant())
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name].repeat(4, 1)
    write_upstream(tmp_path / "source", Variant(), tensors=tensors)
    with pytest.raises(CheckpointError, match=r"padding does not explain.*--cut-rows"):
        convert(tmp_path / "source", tmp_path / "target", Options(**TOWER_OPTIONS))
    convert(tmp_path / "source", tmp_path / "target", Options(**TOWER_OPTIONS, cut_rows=True))
    assert MedMoEConfig.from_directory(tmp_path / "target").text_config.vocab_size == 332
