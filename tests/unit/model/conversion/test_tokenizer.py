"""Whatever form a tokenizer comes in, the prompt has upstream's ids and nobody can spell a special token."""

import base64
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiktoken
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from medmoe.model.config import MedMoEConfig
from medmoe.model.conversion.converter import convert
from medmoe.model.conversion.options import Options
from medmoe.model.conversion.tokenizer.byte_ranks import read_arcade
from medmoe.model.conversion.tokenizer.source import read_tokenizer
from medmoe.model.errors import ConfigError
from medmoe.model.prompt import Prompt
from tests.support.checkpoints.upstream import SYSTEM, TOWER_OPTIONS, Variant, edit_config, write_upstream

QUESTION = "What modality is used, 2 or 3?"
TEXTS = [
    "don't I'M  12345\n\n\t x ",
    "Stra\u00dfe e\u0301 \u4e2d\u6587 \U0001f9e0",
    "a<|endoftext|>b<|im_end|>",
    SYSTEM,
]


def converted(tmp_path: Path, variant: Variant, **config: Any) -> Prompt:
    write_upstream(tmp_path / "source", variant)
    edit_config(tmp_path / "source", **config)
    convert(tmp_path / "source", tmp_path / "target", Options(**TOWER_OPTIONS))
    return Prompt.from_directory(tmp_path / "target", MedMoEConfig.from_directory(tmp_path / "target"))


@pytest.mark.parametrize("backbone", ["phi", "stablelm", "llama"])
def test_the_prompt_has_the_ids_that_upstream_feeds(tmp_path: Path, backbone: str) -> None:
    prompt = converted(tmp_path, Variant(backbone=backbone))
    source = read_tokenizer(tmp_path / "source").tokenizer
    # Upstream splits at <image>, encodes both pieces as the tokenizer does, and keeps one leading <s>.
    bos = [1] if backbone == "llama" else []
    before = source.encode(f"{SYSTEM} USER: ", add_special_tokens=False).ids
    after = source.encode(f"\n{QUESTION} ASSISTANT:", add_special_tokens=False).ids
    image = prompt.config.image_token_id
    assert prompt.question(QUESTION) == [*bos, *before, image, *after]
    assert prompt.expand(prompt.question(QUESTION)).count(image) == prompt.config.num_image_tokens == 16


@pytest.mark.parametrize("backbone", ["phi", "stablelm", "llama"])
def test_the_image_has_no_row_and_cannot_be_spelled(tmp_path: Path, backbone: str) -> None:
    prompt = converted(tmp_path, Variant(backbone=backbone))
    text = prompt.config.text_config
    assert prompt.config.image_token_id == text.vocab_size
    ids = prompt.question("show <image> <|endoftext|> </s> <|extra_0|> <|reg0|> <unk>")
    assert ids.count(text.vocab_size) == 1
    assert not {text.eos_token_id, text.pad_token_id} & set(ids)


def test_phi_gets_the_padding_token_that_upstream_adds_next(tmp_path: Path) -> None:
    prompt = converted(tmp_path, Variant())
    text = prompt.config.text_config
    assert text.pad_token_id == text.vocab_size - 1 == 331
    tokenizer = Tokenizer.from_file(str(tmp_path / "target" / "tokenizer.json"))
    assert tokenizer.id_to_token(text.pad_token_id) == "<|extra_0|>"
    assert tokenizer.id_to_token(text.eos_token_id) == "<|endoftext|>"
    assert text.bos_token_id is None


def test_the_tokenizers_end_goes_before_the_configs(tmp_path: Path) -> None:
    prompt = converted(tmp_path, Variant(), eos_token_id=2)
    report = json.loads((tmp_path / "target" / "conversion.json").read_text())
    assert prompt.config.text_config.eos_token_id == 0
    assert any("eos_token_id 2" in note for note in report["notes"])


def test_added_tokens_of_text_still_match_in_questions(tmp_path: Path) -> None:
    prompt = converted(tmp_path, Variant())
    assert 330 in prompt.question("two  spaces")


def test_a_tokenizer_class_of_another_kind_is_not_read_as_gpt2s(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", Variant())
    (tmp_path / "source" / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    with pytest.raises(ConfigError, match="Qwen2Tokenizer"):
        convert(tmp_path / "source", tmp_path / "target", Options(**TOWER_OPTIONS))


def test_a_tokenizer_that_has_an_image_token_is_refused(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", Variant())
    (tmp_path / "source" / "added_tokens.json").write_text('{"<image>": 330}')
    with pytest.raises(ConfigError, match="already has <image>"):
        convert(tmp_path / "source", tmp_path / "target", Options(**TOWER_OPTIONS))


def test_added_tokens_keep_their_flags(tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", Variant())
    (tmp_path / "source" / "added_tokens.json").unlink()
    decoder = {"0": {"content": "<|endoftext|>", "special": True}, "330": {"content": "<mark>", "special": True}}
    (tmp_path / "source" / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    convert(tmp_path / "source", tmp_path / "target", Options(**TOWER_OPTIONS))
    prompt = Prompt.from_directory(tmp_path / "target", MedMoEConfig.from_directory(tmp_path / "target"))
    assert 330 not in prompt.question("a <mark> b")


@pytest.fixture(scope="module")
def ranks() -> dict[bytes, int]:
    """Byte pairs learnt from this project's own sources, numbered as a rank file numbers them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([path.read_text() for path in Path(__file__).parent.glob("*.py")], trainer)
    letters = {
        **{chr(b): b for b in range(256) if unicodedata.category(chr(b))[0] in "LNPS"},
        **{chr(256 + place): b for place, b in enumerate([*range(33), *range(127, 161), 173])},
    }
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: (len(item[0]) > 1, item[1]))
    return {bytes(letters[letter] for letter in word): rank for rank, (word, _) in enumerate(words)}


def test_a_rank_file_gives_the_ids_that_tiktoken_gives(tmp_path: Path, ranks: dict[bytes, int]) -> None:
    path = tmp_path / "arcade100k.tiktoken"
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    ours = read_arcade(path)
    special = {token: ours.token_to_id(token) for token in ("<|endoftext|>", "<|im_end|>", "<|reg0|>", "<|extra0|>")}
    # The published ids, which count from 100256 ranks.
    assert [id_ - len(ranks) + 100256 for id_ in special.values()] == [100257, 100278, 100280, 100288]
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    pattern += r"|\s+(?!\S)|\s+"
    theirs = tiktoken.Encoding(name="test", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    for text in [*TEXTS, Path(__file__).read_text()]:
        wanted = theirs.encode(unicodedata.normalize("NFC", text), allowed_special="all")
        assert ours.encode(text).ids == wanted
        assert ours.decode(wanted, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


def test_a_sentencepiece_model_gives_its_own_ids(tmp_path: Path) -> None:
    lines = "\n".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    (tmp_path / "corpus.txt").write_text(lines)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=800,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": "LlamaTokenizer", "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | roles))
    (tmp_path / "evil.py").write_text("raise SystemExit('remote code ran')")
    source = read_tokenizer(tmp_path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert source.form == "tokenizer.model"
    for text in (f"{SYSTEM} USER: ", f"\n{QUESTION} ASSISTANT:"):
        assert source.tokenizer.encode(text, add_special_tokens=True).ids == [1, *theirs.encode(text)]
