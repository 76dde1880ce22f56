"""The reference MoE layer against arithmetic done by hand, and against itself in other ways of reckoning."""

import pytest
import torch
from torch import nn

from medmoe.model.config import TextConfig
from medmoe.model.moe import MoE, Router
from tests.support.checkpoints.tiny import tiny_config


class Scale(nn.Module):
    """An 'FFN' simple enough to compute in one's head."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def text(**changes: object) -> TextConfig:
    return tiny_config().text_config.model_copy(update={"hidden_size": 2, **changes})


def scaled_moe(config: TextConfig, factors: list[float]) -> MoE:
    """In evaluation mode: the loop is the reference, to which test_grouped_experts.py holds the form of training."""
    moe = MoE(Scale(10.0), config=config).eval()
    with torch.no_grad():
        for expert, factor in zip(moe.experts, factors, strict=True):
            expert.factor.fill_(factor)
    return moe


def test_two_tokens_by_hand() -> None:
    moe = scaled_moe(text(num_experts=2), [1.0, 2.0])
    with torch.no_grad():
        moe.gate.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        moe.gate.bias.copy_(torch.tensor([0.0, 0.5]))
    x = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    # Token 0: logits (2, 0.5) choose expert 0 with p = sigmoid(1.5); token 1: (0, 2.5) choose expert 1, sigmoid(2.5).
    first, second = torch.sigmoid(torch.tensor(1.5)), torch.sigmoid(torch.tensor(2.5))
    expected = torch.stack([x[0] * (1.0 * first + 10.0), x[1] * (2.0 * second + 10.0)])
    torch.testing.assert_close(moe(x), expected)


def test_the_bias_alone_can_decide() -> None:
    router = Router(text(num_experts=3))
    with torch.no_grad():
        router.bias.copy_(torch.tensor([0.0, 1.0, 0.5]))
    weights, experts = router(torch.zeros(1, 2))
    assert experts.tolist() == [[1]]
    torch.testing.assert_close(weights, torch.tensor([0.0, 1.0, 0.5]).softmax(0)[1].reshape(1, 1))


def test_top_1_is_not_renormalised_and_top_2_can_be() -> None:
    x = torch.randn(5, 2)
    single = Router(text())
    double = Router(text(num_experts_per_tok=2, renormalize=True))
    with torch.no_grad():
        single.weight.normal_()
        double.weight.copy_(single.weight)
    p = single.logits(x).softmax(-1)
    torch.testing.assert_close(single(x)[0][:, 0], p.max(-1).values)
    assert (single(x)[0] < 1).all()
    torch.testing.assert_close(double(x)[0].sum(-1), torch.ones(5))
    torch.testing.assert_close(double(x)[0][:, 0], p.max(-1).values / p.topk(2).values.sum(-1))


def test_right_after_upcycling_the_layer_is_one_plus_p_times_the_ffn() -> None:
    config = text()
    ffn = nn.Sequential(nn.Linear(2, 8), nn.GELU(), nn.Linear(8, 2))
    x = torch.randn(7, 2)
    dense = ffn(x).detach()
    moe = MoE(ffn, config=config).eval()
    with torch.no_grad():
        moe.gate.weight.normal_()
    p = moe.gate(x)[0]
    torch.testing.assert_close(moe(x), dense * (1 + p))


def test_every_token_reaches_its_expert_however_uneven_the_load() -> None:
    moe = scaled_moe(text(), [1.0, 2.0, 3.0, 4.0])
    with torch.no_grad():
        moe.gate.bias.copy_(torch.tensor([0.0, 0.0, 9.0, 0.0]))
    x = torch.ones(100, 2)
    p = moe.gate(x)[0][0]
    torch.testing.assert_close(moe(x), x * (3.0 * p + 10.0))


def test_the_gate_computes_in_float32_whatever_the_weights_are_stored_in() -> None:
    router = Router(text()).to(torch.bfloat16)
    assert router(torch.randn(3, 2, dtype=torch.bfloat16))[0].dtype == torch.float32


def test_without_a_shared_expert_only_the_routed_output_remains() -> None:
    moe = scaled_moe(text(shared_expert=False), [1.0] * 4)
    x = torch.ones(3, 2)
    torch.testing.assert_close(moe(x), x * moe.gate(x)[0])


def test_residual_mixes_the_shared_expert_in_and_adds_it_once_more() -> None:
    moe = scaled_moe(text(residual=True), [1.0, 2.0, 3.0, 4.0])
    with torch.no_grad():
        moe.gate.bias.copy_(torch.tensor([0.0, 9.0, 0.0, 0.0]))
        moe.coefficient.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        moe.coefficient.bias.copy_(torch.tensor([0.0, 0.5]))
    x = torch.tensor([[2.0, 1.0]])
    # The coefficient's logits are (2, 0.5).
    c = torch.sigmoid(torch.tensor(1.5))
    p = moe.gate(x)[0][0, 0]
    torch.testing.assert_close(moe(x), x * (c * p * 2.0 + (1 + (1 - c)) * 10.0))


def test_residual_has_one_set_of_weights_for_both_uses_of_the_shared_expert() -> None:
    moe = scaled_moe(text(residual=True), [0.0] * 4)
    assert [name for name, _ in moe.named_parameters() if name.startswith("shared")] == ["shared_expert.factor"]
    # Coefficient of zeros: one and a half times x, over two dimensions.
    nn.init.zeros_(moe.coefficient.weight)
    nn.init.zeros_(moe.coefficient.bias)
    moe(torch.ones(1, 2)).sum().backward()
    torch.testing.assert_close(moe.shared_expert.factor.grad, torch.tensor(3.0))


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 4, 2)], ids=["token", "sequence", "batch"])
def test_any_number_of_leading_dimensions(shape: tuple[int, ...]) -> None:
    assert scaled_moe(text(), [1.0] * 4)(torch.randn(shape)).shape == shape
