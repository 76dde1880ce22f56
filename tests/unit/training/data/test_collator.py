"""Batches: the loss falls on the answer alone, and nothing is cut to fit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from medmoe.model.prompt import Prompt
from medmoe.training.data.batches.collator import IGNORE_INDEX, Collator
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from tests.support.checkpoints.tiny import tiny_config, tiny_tokenizer

BOS, EOS, PAD, IMAGE, IMAGE_TOKENS = 1, 2, 0, 3, 4


def sample(**fields: Any) -> Sample:
    known: dict[str, Any] = {"id": "d/0", "dataset": "d", "image": Path("/a.png"), "split": "train", "answer": "CT"}
    return Sample(**(known | fields))


def features(path: Path, view: int) -> torch.Tensor:
    return torch.full((16, 32), float(path.stem == "b") + 10 * view)


def encode(text: str) -> list[int]:
    ids: list[int] = tiny_tokenizer().encode(text, add_special_tokens=False).ids
    return ids


def collator(**text: Any) -> Collator:
    return Collator(Prompt(tiny_config(**text), tokenizer=tiny_tokenizer()), features=features)


def test_hand_made_question_and_its_labels() -> None:
    ids, labels = collator().encode(sample(question="What modality?"))
    before = [BOS, *encode("USER: "), *[IMAGE] * IMAGE_TOKENS, *encode("\nWhat modality?"), *encode(" ASSISTANT:")]
    answer = [*encode(" CT"), EOS]
    assert ids == before + answer
    assert labels == [IGNORE_INDEX] * len(before) + answer


def test_hand_made_caption_and_its_labels() -> None:
    ids, labels = collator().encode(sample(answer="A CT."))
    answer = [*encode(" A CT."), EOS]
    assert ids == [BOS, *[IMAGE] * IMAGE_TOKENS, *answer]
    assert labels == [IGNORE_INDEX] * (1 + IMAGE_TOKENS) + answer


def test_classification_asks_the_template_question_in_sorted_order() -> None:
    ids, _ = collator().encode(sample(labels=("MRI", "CT")))
    asked, _ = collator().encode(sample(question="Which of these is shown: CT, MRI?"))
    assert ids == asked


def test_text_that_spells_the_image_token_is_text() -> None:
    ids, _ = collator().encode(sample(question="What is <image>?", answer="<image></s>"))
    assert ids.count(IMAGE) == IMAGE_TOKENS
    assert ids.count(EOS) == 1


def test_batch_is_padded_on_the_right() -> None:
    short, long = sample(question="What?"), sample(question="What modality is used to take this image?")
    batch = collator()([(short,), (long,)])
    length = len(collator().encode(short)[0])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["labels"].shape
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.long
    assert batch["input_ids"][0, length:].eq(PAD).all()
    assert batch["attention_mask"].sum(1).tolist() == [length, batch["input_ids"].shape[1]]
    assert batch["labels"][0, length:].eq(IGNORE_INDEX).all()
    assert batch["labels"][0, length - 1] == EOS


def test_features_are_stacked_in_the_order_of_samples() -> None:
    samples = [sample(question="What?", image=Path(path)) for path in ("/b.png", "/a.png")]
    stacked = collator()([(one,) for one in samples])["features"]
    assert stacked.shape == (2, 16, 32)
    assert stacked[:, 0, 0].tolist() == [1.0, 0.0]


def test_packs_of_the_general_domain_are_told_apart() -> None:
    packs = [(sample(question="What?", domain=domain),) for domain in ("general", "medical")]
    assert collator()(packs)["general"].tolist() == [True, False]


def test_sample_longer_than_the_context_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match="d/0"):
        collator(max_position_embeddings=8).encode(sample(question="What modality?"))


def test_sample_of_exactly_the_context_fits() -> None:
    question = sample(question="What modality?")
    length = len(collator().encode(question)[0])
    assert len(collator(max_position_embeddings=length).encode(question)[0]) == length


def test_a_pack_shows_the_view_that_its_sample_names() -> None:
    rows = collator()([(sample(),), (sample(view=3),)])["features"]
    assert [int(row.mean()) // 10 for row in rows] == [0, 3]


def test_a_packs_length_is_that_of_its_row() -> None:
    pack = (sample(question="What modality?"), sample(id="d/1", question="Where?"))
    assert collator().length(pack) == collator()([pack])["input_ids"].shape[1]
