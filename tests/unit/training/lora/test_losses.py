"""The losses on gates: against hand arithmetic, and by what a router does when it follows them."""

from collections.abc import Callable

import pytest
import torch

from medmoe.model.lora.router import GateRouter
from medmoe.training.lora.gate_statistics import gate_statistics
from medmoe.training.lora.losses import (
    anchor_target,
    balance_loss,
    base_divergence,
    localized_balancing_loss,
    preservation_loss,
)

ONE = torch.ones(1, 1, dtype=torch.bool)


def gates_of(*tokens: list[float]) -> torch.Tensor:
    return torch.tensor([tokens])


def everything(gates: torch.Tensor) -> torch.Tensor:
    return torch.ones(gates.shape[:2], dtype=torch.bool)


def test_balance_is_cv_squared_of_the_specialists_mean_share() -> None:
    gates = gates_of([0.5, 0.3, 0.2], [0.2, 0.8, 0.0])
    # Among specialists: (.6, .4) and (1, 0); mean (.8, .2), variance .09, mean .5.
    assert float(balance_loss(gates, n_anchor=1, mask=everything(gates))) == pytest.approx(0.09 / 0.25)


def test_confident_but_balanced_routing_costs_nothing() -> None:
    gates = gates_of([0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    assert float(balance_loss(gates, n_anchor=1, mask=everything(gates))) == pytest.approx(0)


def test_the_anchors_share_is_not_balanced() -> None:
    gates = gates_of([0.98, 0.01, 0.01], [0.02, 0.49, 0.49])
    assert float(balance_loss(gates, n_anchor=1, mask=everything(gates))) == pytest.approx(0, abs=1e-6)


def test_balance_ignores_padding() -> None:
    torch.manual_seed(0)
    gates = torch.randn(2, 6, 4).softmax(-1)
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    padded = gates.clone()
    padded[1, 3:] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    first, second = (balance_loss(value, n_anchor=1, mask=mask) for value in (gates, padded))
    assert torch.equal(first, second)
    assert not torch.allclose(balance_loss(padded, n_anchor=1, mask=everything(gates)), first)


def test_image_tokens_count_together_as_much_as_text_tokens() -> None:
    few = gates_of(*[[0.0, 1.0, 0.0]] * 3, [0.0, 0.0, 1.0])
    image = torch.tensor([[True, True, True, False]])
    assert float(balance_loss(few, n_anchor=1, mask=everything(few), image=image)) == pytest.approx(0)
    assert float(balance_loss(few, n_anchor=1, mask=everything(few))) == pytest.approx(0.25)


def test_a_batch_without_images_is_balanced_over_its_text() -> None:
    gates = gates_of([0.0, 1.0, 0.0], [0.0, 1.0, 0.0])
    image = torch.zeros(1, 2, dtype=torch.bool)
    assert float(balance_loss(gates, n_anchor=1, mask=everything(gates), image=image)) == pytest.approx(1)


def test_nothing_but_padding_gives_zero_and_a_gradient_that_is_finite() -> None:
    gates = torch.randn(1, 3, 4).softmax(-1).requires_grad_()
    loss = balance_loss(gates, n_anchor=1, mask=torch.zeros(1, 3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert gates.grad is not None
    assert torch.isfinite(gates.grad).all()


@pytest.mark.parametrize(
    ("n_experts", "n_anchor", "general", "medical"), [(2, 1, 0.75, 0.25), (4, 1, 0.5, 0.1), (8, 2, 0.5, 0.1)]
)
def test_targets_with_delta_one_half(n_experts: int, n_anchor: int, general: float, medical: float) -> None:
    target = anchor_target(n_experts=n_experts, n_anchor=n_anchor, general=torch.tensor([True, False]), delta=0.5)
    torch.testing.assert_close(target, torch.tensor([general, medical]))


def test_preservation_is_cross_entropy_per_sample() -> None:
    gates = torch.tensor([[[0.6, 0.4], [0.2, 0.8]]])
    loss = preservation_loss(gates, n_anchor=1, mask=everything(gates), general=torch.tensor([True]))
    assert float(loss) == pytest.approx(-(0.75 * torch.tensor(0.4).log() + 0.25 * torch.tensor(0.6).log()).item())


def test_preservation_ignores_padding_and_samples_without_tokens() -> None:
    torch.manual_seed(0)
    gates = torch.randn(2, 4, 3).softmax(-1)
    general = torch.tensor([True, False])
    mask = torch.tensor([[True, True, False, False], [False] * 4])
    alone = preservation_loss(gates[:1, :2], n_anchor=1, mask=torch.ones(1, 2, dtype=torch.bool), general=general[:1])
    torch.testing.assert_close(preservation_loss(gates, n_anchor=1, mask=mask, general=general), alone)


Loss = Callable[..., torch.Tensor]


def learnt_shares(loss: Loss, *, n_experts: int, n_anchor: int, steps: int = 400) -> tuple[float, float, torch.Tensor]:
    """Anchor share on general and on medical samples after a router has followed `loss` alone."""
    torch.manual_seed(0)
    router = GateRouter(width=8, n_experts=n_experts, tau_clamp=(0.25, 4.0))
    general = torch.tensor([True, True, False, False, False, False])
    x = torch.randn(6, 5, 8)
    x[..., 0] = torch.where(general, 1.0, -1.0)[:, None]
    x[..., 1] = 1.0
    optimizer = torch.optim.Adam(router.parameters(), lr=0.05)
    mask = torch.ones(6, 5, dtype=torch.bool)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(router(x), n_anchor=n_anchor, mask=mask, general=general, delta=0.5).backward()
        optimizer.step()
    gates = router(x).detach()
    share = gates[..., :n_anchor].sum(-1)
    return float(share[general].mean()), float(share[~general].mean()), gates


@pytest.mark.parametrize(("n_experts", "n_anchor", "general", "medical"), [(2, 1, 0.75, 0.25), (8, 2, 0.5, 0.1)])
def test_a_router_that_follows_preservation_reaches_its_targets(
    n_experts: int, n_anchor: int, general: float, medical: float
) -> None:
    found = learnt_shares(preservation_loss, n_experts=n_experts, n_anchor=n_anchor)
    assert found[0] == pytest.approx(general, abs=0.01)
    assert found[1] == pytest.approx(medical, abs=0.01)


def test_ten_steps_already_move_mass_to_the_matching_group() -> None:
    general, medical, _ = learnt_shares(preservation_loss, n_experts=4, n_anchor=1, steps=10)
    assert general > 0.25 > medical


def test_the_loramoe_form_with_the_right_sign_moves_mass_to_the_matching_group() -> None:
    general, medical, _ = learnt_shares(localized_balancing_loss, n_experts=4, n_anchor=2)
    assert general == pytest.approx(0.75, abs=0.02)
    assert medical == pytest.approx(0.25, abs=0.02)


def test_loramoes_own_sign_would_move_it_away() -> None:
    def uncorrected(gates: torch.Tensor, *, general: torch.Tensor, **rest: object) -> torch.Tensor:
        return localized_balancing_loss(gates, general=~general, **rest)  # type: ignore[arg-type]

    general, medical, _ = learnt_shares(uncorrected, n_experts=4, n_anchor=2)
    assert general < 0.5 < medical


def test_the_loramoe_form_is_zero_at_the_ratio_it_asks_for() -> None:
    gates = torch.tensor([[[0.375, 0.375, 0.125, 0.125]], [[0.125, 0.125, 0.375, 0.375]]])
    loss = localized_balancing_loss(
        gates, n_anchor=2, mask=everything(gates), general=torch.tensor([True, False]), delta=0.5
    )
    assert float(loss) == pytest.approx(0, abs=1e-7)


def test_divergence_from_the_base_is_zero_for_the_base_itself_and_has_no_gradient_trap() -> None:
    logits = torch.randn(3, 7, requires_grad=True)
    assert float(base_divergence(logits, logits.detach()).detach()) == pytest.approx(0, abs=1e-6)
    assert float(base_divergence(logits, logits.detach().roll(1, dims=1)).detach()) > 0.1
    assert float(base_divergence(logits[:0], logits[:0].detach()).detach()) == 0


def test_statistics_by_hand() -> None:
    gates = torch.tensor([[[0.6, 0.4], [1.0, 0.0]], [[0.2, 0.8], [0.5, 0.5]]])
    mask = torch.tensor([[True, False], [True, True]])
    found = gate_statistics(gates, n_anchor=1, mask=mask, general=torch.tensor([True, False]), temperature=1.5)
    assert found.mean_gate == pytest.approx((1.3 / 3, 1.7 / 3))
    assert found.max_share == pytest.approx(1.7 / 3)
    assert found.anchor_mass_general == pytest.approx(0.6)
    assert found.anchor_mass_medical == pytest.approx(0.35)
    assert found.temperature == 1.5
    assert not found.collapsed


@pytest.mark.parametrize(("share", "alarm"), [(0.94, False), (0.96, True)])
def test_the_alarm_rings_when_one_expert_does_all_the_work(share: float, alarm: bool) -> None:
    gates = torch.tensor([[[share, 1 - share]]])
    found = gate_statistics(gates, n_anchor=0, mask=ONE, general=torch.tensor([False]), temperature=1.0)
    assert found.collapsed is alarm
    assert found.anchor_mass_general is None
    assert found.entropy < 0.3
