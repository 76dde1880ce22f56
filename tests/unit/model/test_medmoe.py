"""The assembled reference model."""

import pytest
import torch

from medmoe.model.medmoe import MedMoE
from medmoe.model.projector import fold_patches
from tests.support.checkpoints.tiny import tiny_config, tiny_model


@pytest.fixture(scope="module")
def model() -> MedMoE:
    return tiny_model()


def prompts_of(*lengths: int) -> list[list[int]]:
    torch.manual_seed(1)
    return [[1, *[3] * 4, *torch.randint(4, 400, (length,)).tolist()] for length in lengths]


def test_generation_with_a_cache_equals_repeated_full_forwards(model: MedMoE) -> None:
    (prompt,) = prompts_of(6)
    features = torch.randn(1, 16, 32)
    expected: list[int] = []
    for _ in range(5):
        ids = torch.tensor([prompt + expected])
        hidden = model.hidden_states(ids, torch.ones_like(ids), features)
        expected.append(int(model.language_model.lm_head(hidden[0, -1]).argmax()))
    assert model.generate([prompt], features, max_tokens=5) == [expected]


def test_padding_beside_longer_prompts_changes_no_answer(model: MedMoE) -> None:
    prompts = prompts_of(3, 9, 20)
    features = torch.randn(3, 16, 32)
    together = model.generate(prompts, features, max_tokens=6)
    alone = [model.generate([p], features[i : i + 1], max_tokens=6)[0] for i, p in enumerate(prompts)]
    assert together == alone


def test_an_answer_ends_with_end_of_sequence_while_others_go_on(model: MedMoE, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, features = prompts_of(3, 9), torch.randn(2, 16, 32)
    whole = model.generate(prompts, features, max_tokens=6)
    end = next(token for token in whole[0] if token not in whole[1])
    text = model.config.text_config.model_copy(update={"eos_token_id": end})
    monkeypatch.setattr(model, "config", model.config.model_copy(update={"text_config": text}))
    assert model.generate(prompts, features, max_tokens=6) == [whole[0][: whole[0].index(end) + 1], whole[1]]


def test_another_image_changes_the_answer(model: MedMoE) -> None:
    prompt = prompts_of(6)
    torch.manual_seed(2)
    answers = [model.generate(prompt, torch.randn(1, 16, 32), max_tokens=6)[0] for _ in range(4)]
    assert len({tuple(answer) for answer in answers}) > 1


def test_too_few_or_too_many_image_tokens_are_refused_with_both_counts(model: MedMoE) -> None:
    ids = torch.tensor([[1, 3, 3, 3, 5]])
    with pytest.raises(ValueError, match="3 image tokens, the images 4 embeddings"):
        model.embed(ids, torch.zeros(1, 4, 64))


def test_the_tower_gives_one_feature_a_patch_and_never_learns(model: MedMoE) -> None:
    features = model.vision_tower(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, 16, 32)
    assert not features.requires_grad
    assert not any(parameter.requires_grad for parameter in model.vision_tower.parameters())


def test_folding_keeps_neighbouring_patches_together() -> None:
    images = torch.arange(32.0).reshape(2, 16, 1)
    first, second = fold_patches(images, factor=2)
    assert first.tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]
    assert torch.equal(second, first + 16)
    assert fold_patches(images, factor=1) is images


def test_an_input_norm_takes_each_patch_to_one_scale() -> None:
    torch.manual_seed(0)
    projector = MedMoE(tiny_config(input_norm="layer_norm")).projector
    features = torch.randn(1, 16, 32)
    scale = torch.rand(1, 16, 1) + 0.5
    torch.testing.assert_close(projector(features * scale), projector(features), atol=1e-4, rtol=1e-4)
    normed = (features - features.mean(-1, keepdim=True)) / features.var(-1, keepdim=True, unbiased=False).sqrt()
    folded = fold_patches(normed, factor=2)
    by_hand = projector.linear_2(torch.nn.functional.gelu(projector.linear_1(folded)))
    torch.testing.assert_close(projector(features), by_hand, atol=1e-4, rtol=1e-4)


def test_without_an_input_norm_the_scale_of_the_features_counts() -> None:
    torch.manual_seed(0)
    projector = MedMoE(tiny_config()).projector
    features = torch.randn(1, 16, 32)
    assert not torch.allclose(projector(features * 2), projector(features), atol=1e-3)
    assert "input_norm.weight" not in projector.state_dict()
