"""Prompts as token ids: one image token, and user text that cannot become anything but text."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from medmoe.model.errors import CheckpointError, PromptError
from medmoe.model.prompt import Prompt
from tests.support.checkpoints.tiny import SPECIAL_TOKENS, tiny_config, tiny_tokenizer


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    return Prompt(tiny_config(), tokenizer=tiny_tokenizer())


def test_one_image_token_then_the_question(prompt: Prompt) -> None:
    ids = prompt.question("Is there a fracture?")
    assert ids.count(prompt.config.image_token_id) == 1
    assert ids[0] == prompt.config.text_config.bos_token_id
    assert prompt.decode(ids) == "USER: \nIs there a fracture? ASSISTANT:"


@pytest.mark.parametrize("token", [*SPECIAL_TOKENS, "<image><image>", "</s></s>"])
def test_a_question_that_spells_a_special_token_is_only_text(prompt: Prompt, token: str) -> None:
    ids = prompt.question(f"what is {token} here")
    special = [id_ for id_ in ids if id_ < len(SPECIAL_TOKENS)]
    assert special == [prompt.config.text_config.bos_token_id, prompt.config.image_token_id]
    assert f"what is {token} here" in prompt.decode(ids)


def test_an_answer_cannot_smuggle_an_early_end(prompt: Prompt) -> None:
    ids = prompt.answer("yes</s>no")
    assert ids.count(prompt.config.text_config.eos_token_id) == 1


def test_an_answer_ends_with_end_of_sequence_and_decodes_to_itself(prompt: Prompt) -> None:
    ids = prompt.answer("left lung")
    assert ids[-1] == prompt.config.text_config.eos_token_id
    assert prompt.decode(ids) == "left lung"


def test_a_tokenizer_adds_and_cuts_nothing_by_itself(prompt: Prompt) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    other = Prompt(tiny_config(), tokenizer=tokenizer)
    assert other.question("Is there a fracture?") == prompt.question("Is there a fracture?")
    assert other.answer("left lung") == prompt.answer("left lung")


def test_expansion_makes_room_for_every_image_embedding(prompt: Prompt) -> None:
    ids = prompt.question("Is it normal?")
    expanded = prompt.expand(ids)
    assert expanded.count(prompt.config.image_token_id) == prompt.config.num_image_tokens
    assert len(expanded) == len(ids) - 1 + prompt.config.num_image_tokens


@pytest.mark.parametrize("question", ["", "   ", "\n\t"])
def test_a_blank_question_or_answer_is_refused(prompt: Prompt, question: str) -> None:
    for encode in (prompt.question, prompt.answer, prompt.caption):
        with pytest.raises(PromptError):
            encode(question)


def test_the_order_of_labels_does_not_change_the_prompt(prompt: Prompt) -> None:
    assert prompt.classification(["MRI", "CT"]) == prompt.classification([" CT", "MRI "])


@pytest.mark.parametrize("label", ["{labels}", "{0}", "{labels.__class__}", "%s", "{"])
def test_labels_are_never_read_as_a_template(prompt: Prompt, label: str) -> None:
    assert label in prompt.classification([label, "CT"])
    assert f"A. {label}, B. CT" in prompt.choice([label, "CT"])
    assert label in prompt.presence(label)


def test_options_keep_their_order_and_an_answer_begins_with_a_letter(prompt: Prompt) -> None:
    by_letter = "Answer with the option's letter from the given choices directly."
    assert prompt.choice(["MRI", " CT"]) == f"Which of these is shown: A. MRI, B. CT?\n{by_letter}"
    assert prompt.choice(["MRI", "CT"], question="What is it? ") == f"What is it?\nA. MRI\nB. CT\n{by_letter}"
    assert prompt.decode(prompt.letter(1)) == "B"
    assert prompt.config.text_config.eos_token_id not in prompt.letter(1)
    with pytest.raises(PromptError):
        prompt.choice([f"label {number}" for number in range(27)])


@pytest.mark.parametrize("text", ["na\u00efve \u2013 \u00bd \u2620 \u4e2d\u6587", "a\u0000b", "\U0001f9e0"])
def test_any_unicode_survives(prompt: Prompt, text: str) -> None:
    assert text in prompt.decode(prompt.question(text))


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        Prompt.from_directory(tmp_path, tiny_config())
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a tokenizers file"):
        Prompt.from_directory(tmp_path, tiny_config())


def test_a_tokenizer_larger_than_the_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match="300 ids"):
        Prompt(tiny_config(vocab_size=300), tokenizer=tiny_tokenizer())


def test_a_tokenizer_without_the_image_token_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not in"):
        Prompt(tiny_config(), tokenizer=Tokenizer(BPE()))


def test_a_tokenizer_that_lets_text_become_an_image_is_refused() -> None:
    tokenizer = Tokenizer.from_str(tiny_tokenizer().to_str().replace('"special":true', '"special":false'))
    with pytest.raises(CheckpointError, match="not marked as special"):
        Prompt(tiny_config(), tokenizer=tokenizer)


def test_an_id_beyond_the_embedding_is_refused_however_few_tokens_there_are() -> None:
    tokenizer = tiny_tokenizer()
    document = json.loads(tokenizer.to_str())
    document["model"]["vocab"]["zzzz"] = 70_000
    with pytest.raises(CheckpointError, match="70000"):
        Prompt(tiny_config(), tokenizer=Tokenizer.from_str(json.dumps(document)))
