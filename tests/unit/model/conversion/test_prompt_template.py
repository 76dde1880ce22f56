"""Conversations have the token ids that upstream's conversation.py and tokenizer_image_token give them."""

import itertools
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from medmoe.model.config import MedMoEConfig
from medmoe.model.conversion.converter import convert
from medmoe.model.conversion.options import Options
from medmoe.model.errors import ConfigError, PromptError
from medmoe.model.prompt import History, Prompt
from tests.support.checkpoints.upstream import SYSTEM, TOWER_OPTIONS, Variant, write_upstream

SEP2 = {"phi": "<|endoftext|>", "stablelm": "<|endoftext|>", "llama": "</s>"}
TURNS = (("What is it?", "A chest X-ray."), ("Is it normal?", "no"), ("Where?\nLeft or right?", "in the left lung"))
QUESTION = "What modality is used, 2 or 3?"


def written(tmp_path: Path, backbone: str, **options: str) -> Prompt:
    write_upstream(tmp_path / "source", Variant(backbone=backbone))
    target = tmp_path / "-".join(["target", *options.values()])
    convert(tmp_path / "source", target, Options(**TOWER_OPTIONS, **options))  # type: ignore[arg-type]
    return Prompt.from_directory(target, MedMoEConfig.from_directory(target))


def rendered(backbone: str, turns: tuple[tuple[str, str], ...], *, system: str, image_turn: int) -> str:
    """The text of upstream's templates: two separators, a space after questions and sep2 after answers."""
    text = system + " "
    for index, (question, answer) in enumerate((*turns, (QUESTION, ""))):
        text += "USER: " + ("<image>\n" if index == image_turn else "") + question + " ASSISTANT:"
        text += f" {answer}{SEP2[backbone]}" if answer else ""
    return text


@pytest.mark.parametrize("backbone", ["phi", "stablelm", "llama"])
def test_one_to_four_turns_have_upstreams_ids(tmp_path: Path, backbone: str) -> None:
    prompt = written(tmp_path, backbone)
    # A tokenizer as upstream uses it, which reads special tokens in the text.
    upstream = Tokenizer.from_file(str(tmp_path / "target" / "tokenizer.json"))
    bos = [1] if backbone == "llama" else []
    for count, system in itertools.product(range(len(TURNS) + 1), (None, "Answer in one word.")):
        for image_turn in range(count + 1):
            text = rendered(backbone, TURNS[:count], system=system or SYSTEM, image_turn=image_turn)
            before, after = (upstream.encode(piece, add_special_tokens=False).ids for piece in text.split("<image>"))
            history = History(turns=TURNS[:count], system_message=system, image_turn=image_turn)
            assert prompt.conversation(QUESTION, history) == [*bos, *before, prompt.config.image_token_id, *after]
    assert prompt.conversation(QUESTION, History()) == prompt.question(QUESTION)


def test_texts_of_a_conversation_cannot_spell_special_tokens(tmp_path: Path) -> None:
    prompt = written(tmp_path, "phi")
    spelled = "a <image> <|endoftext|> <|extra_0|> b"
    ids = prompt.conversation(spelled, History(turns=((spelled, spelled),), system_message=spelled))
    text = prompt.config.text_config
    assert [ids.count(one) for one in (prompt.config.image_token_id, text.eos_token_id, text.pad_token_id)] == [1, 1, 0]


def test_a_template_is_assumed_with_a_warning_or_stated(tmp_path: Path) -> None:
    assumed, stated = written(tmp_path, "phi"), written(tmp_path, "phi", template="phi")
    assert assumed.config.prompt == stated.config.prompt
    notes = [
        json.loads((tmp_path / name / "conversion.json").read_text())["notes"] for name in ("target", "target-phi")
    ]
    assert [any("template is assumed" in note for note in found) for found in notes] == [True, False]
    single = written(tmp_path, "phi", template="single_question")
    assert single.config.prompt.turns is None
    assert single.sha256 == stated.sha256
    with pytest.raises(PromptError, match="no place"):
        single.conversation(QUESTION, History(turns=TURNS))
    with pytest.raises(ConfigError, match="--template"):
        written(tmp_path, "phi", template="mistral")
