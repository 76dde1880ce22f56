"""Packing changes the time a step takes, not what it computes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.batches.packing import PADDING, Pack, pack_by_image, packed_mask
from medmoe.training.data.sample import Sample
from medmoe.training.optimization.loss import AnswerLoss
from tests.support.checkpoints.tiny import tiny_config, tiny_tokenizer


def question(number: int, *, image: str = "a", **fields: Any) -> Sample:
    known: dict[str, Any] = {"question": f"What is {'there ' * number}?", "answer": ("yes", "a CT scan")[number % 2]}
    return Sample(id=f"d/{number}", dataset="d", image=Path(f"/{image}.png"), split="train", **(known | fields))


def loss_and_gradients(packs: list[Pack], *, text: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = MedMoE(tiny_config(**text))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    features = {Path(f"/{name}.png"): torch.randn(16, 32) for name in "ab"}
    collator = Collator(Prompt(model.config, tokenizer=tiny_tokenizer()), features=lambda image, view: features[image])
    loss = AnswerLoss(model)(**collator(packs))["loss"]
    loss.backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return float(loss.detach()), found


@pytest.mark.parametrize("backbone", ["llama", "phi", "stablelm"])
def test_loss_and_every_gradient_are_those_of_a_sequence_a_question(backbone: str) -> None:
    text: dict[str, Any] = {"model_type": backbone}
    if backbone == "phi":
        text |= {"num_key_value_heads": tiny_config().text_config.num_attention_heads, "tie_word_embeddings": False}
    samples = [question(number) for number in range(4)] + [question(5, image="b"), question(6, image="b")]
    alone_loss, alone = loss_and_gradients([(sample,) for sample in samples], text=text)
    packed_loss, packed = loss_and_gradients([tuple(samples[:4]), tuple(samples[4:])], text=text)
    assert packed_loss == pytest.approx(alone_loss, rel=1e-5)
    assert alone.keys() == packed.keys()
    assert any(float(value.abs().max()) > 1e-3 for value in alone.values())
    for name, gradient in alone.items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_packs_hold_one_image_and_at_most_so_many_questions() -> None:
    samples = [question(number, image="ab"[number % 2]) for number in range(10)]
    packs = pack_by_image(samples, most=3, seed=1)
    assert sorted(map(len, packs)) == [2, 2, 3, 3]
    assert all(len({sample.image for sample in pack}) == 1 for pack in packs)
    assert sorted(sample.id for pack in packs for sample in pack) == sorted(sample.id for sample in samples)


def test_captions_and_repeats_are_not_packed_with_themselves() -> None:
    captions = [question(number, question=None) for number in range(2)]
    assert [len(pack) for pack in pack_by_image(captions, most=8, seed=1)] == [1, 1]
    assert [len(pack) for pack in pack_by_image([question(1)] * 3, most=8, seed=1)] == [1, 1, 1]


def test_order_follows_the_seed() -> None:
    samples = [question(number, image=chr(97 + number)) for number in range(12)]
    assert pack_by_image(samples, most=2, seed=1) == pack_by_image(samples, most=2, seed=1)
    assert pack_by_image(samples, most=2, seed=1) != pack_by_image(samples, most=2, seed=2)


def test_a_query_sees_the_prefix_and_its_own_segment() -> None:
    mask = packed_mask(torch.tensor([[0, 0, 1, 1, 2, PADDING]]))[0, 0]
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]
