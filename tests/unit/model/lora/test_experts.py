"""The trained form: its arithmetic against the loop over experts, and who gets a gradient."""

import math

import pytest
import torch

from medmoe.model.lora.adapter_config import Isolation, LayerExperts
from medmoe.model.lora.experts import LoRAExperts
from medmoe.model.lora.layout import LinearShape
from medmoe.model.lora.router import GateRouter, drop_experts
from medmoe.model.lora.schedule import layer_experts
from tests.support.lora_oracle import oracle_delta, oracle_gates

LINEAR = LinearShape(name="up_proj", in_features=12, out_features=10)
LAYERS = {
    "rank-0 anchor": LayerExperts(n_anchor=1, ranks=(0, 5, 3), alphas=(0.0, 10.0, 3.0)),
    "anchor with a rank": LayerExperts(n_anchor=1, ranks=(2, 5, 3), alphas=(4.0, 10.0, 3.0)),
    "no anchor": LayerExperts(n_anchor=0, ranks=(4, 4), alphas=(8.0, 8.0)),
    "one expert": LayerExperts(n_anchor=0, ranks=(16,), alphas=(32.0,)),
    "eight experts": layer_experts(8, anchor_mode="replay"),
}


def trained(layer: LayerExperts, *, isolate: Isolation = "anchors", dropout: float = 0.0) -> LoRAExperts:
    mode = "replay" if any(layer.ranks[: layer.n_anchor]) else "null"
    experts = LoRAExperts(LINEAR, layer, anchor_mode=mode, isolate=isolate, dropout=dropout).double()
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.normal_()
    return experts


def gates_for(layer: LayerExperts, tokens: int) -> torch.Tensor:
    return torch.randn(tokens, layer.n_experts, dtype=torch.float64).softmax(-1)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_the_concatenated_form_equals_the_loop_over_experts(layer: LayerExperts) -> None:
    torch.manual_seed(0)
    experts = trained(layer)
    x, gates = torch.randn(6, 12, dtype=torch.float64), gates_for(layer, 6)
    expected = oracle_delta(x, gates, *experts.stored(), ranks=layer.ranks, alphas=layer.alphas)
    torch.testing.assert_close(experts(x, gates), expected)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_what_is_stored_fills_another_one(layer: LayerExperts) -> None:
    first, second = trained(layer), trained(layer)
    second.fill(*first.stored())
    x, gates = torch.randn(6, 12, dtype=torch.float64), gates_for(layer, 6)
    assert torch.equal(first(x, gates), second(x, gates))
    assert first.stored()[0].shape == (layer.total_rank, 12)
    assert first.stored()[1].shape == (10, layer.total_rank)


def test_each_experts_a_is_initialised_as_if_it_were_alone_and_b_is_zero() -> None:
    torch.manual_seed(0)
    experts = LoRAExperts(LINEAR, LAYERS["eight experts"], anchor_mode="replay")
    a, b = (tensor.detach() for tensor in experts.stored())
    bound = 1 / math.sqrt(12)  # kaiming with a = sqrt(5)
    assert not b.any()
    assert 0.9 * bound < a.abs().max() <= bound
    assert float(a.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_gates_are_a_distribution_and_equal_the_papers_equation() -> None:
    torch.manual_seed(0)
    router = GateRouter(width=12, n_experts=5, tau_clamp=(0.25, 4.0)).double()
    with torch.no_grad():
        router.weight.normal_()
        router.log_tau.fill_(0.4)
    x = torch.randn(9, 12, dtype=torch.float64)
    gates = router(x)
    torch.testing.assert_close(gates, oracle_gates(x, router.weight.detach(), 0.4))
    torch.testing.assert_close(gates.sum(-1), torch.ones(9, dtype=torch.float64))


def test_gates_start_almost_equal() -> None:
    torch.manual_seed(0)
    router = GateRouter(width=256, n_experts=4, tau_clamp=(0.25, 4.0))
    assert (router(torch.randn(50, 256)) - 0.25).abs().max() < 0.15


@pytest.mark.parametrize(("log_tau", "tau"), [(0.0, 1.0), (9.0, 4.0), (-9.0, 0.25)])
def test_the_temperature_stays_inside_its_bounds(log_tau: float, tau: float) -> None:
    router = GateRouter(width=4, n_experts=2, tau_clamp=(0.25, 4.0))
    torch.nn.init.constant_(router.log_tau, log_tau)
    assert float(router.temperature().detach()) == pytest.approx(tau)
    expected = oracle_gates(torch.ones(1, 4), router.weight.detach(), log_tau)
    torch.testing.assert_close(router(torch.ones(1, 4)), expected)


def test_gates_are_computed_in_float32_whatever_comes_in_and_under_autocast() -> None:
    router = GateRouter(width=8, n_experts=4, tau_clamp=(0.25, 4.0))
    x = torch.randn(3, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gates = router(x)
    assert gates.dtype == torch.float32
    assert torch.equal(gates, router(x.float()))


def test_dropped_experts_leave_a_distribution_and_never_nothing() -> None:
    torch.manual_seed(0)
    gates = torch.randn(4000, 3).softmax(-1)
    dropped = drop_experts(gates, probability=0.5)
    torch.testing.assert_close(dropped.sum(-1), torch.ones(4000))
    assert 0.3 < float((dropped == 0).float().mean()) < 0.5


def test_one_dropout_mask_is_shared_by_all_experts() -> None:
    """With every expert's A and B the same and gates summing to 1, the mixture is one expert on one masked input."""
    layer = LayerExperts(n_anchor=0, ranks=(3, 3), alphas=(3.0, 3.0))
    experts = LoRAExperts(LINEAR, layer, anchor_mode="null", dropout=0.5)
    a, b = torch.eye(3, 12), torch.eye(10, 3)
    experts.fill(torch.cat([a, a]), torch.cat([b, b], dim=1))
    experts.train()
    torch.manual_seed(0)
    y = experts(torch.ones(200, 12), torch.full((200, 2), 0.5))[:, :3]
    # A coordinate survives for both experts (doubled by dropout's scaling) or for neither, never for one of them.
    assert set(y.unique().tolist()) == {0.0, 2.0}


def gradients(experts: LoRAExperts, *, general: torch.Tensor | None) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    gates = torch.randn(8, 3, dtype=torch.float64).softmax(-1).requires_grad_()
    x = torch.randn(8, 12, dtype=torch.float64, requires_grad=True)
    experts.zero_grad()
    (experts(x, gates, general=general) * torch.randn(8, 10, dtype=torch.float64)).sum().backward()
    found = {name: parameter.grad for name, parameter in experts.named_parameters()}
    return {name: grad for name, grad in (found | {"gates": gates.grad, "x": x.grad}).items() if grad is not None}


LAYER = LAYERS["anchor with a rank"]


def test_a_medical_batch_gives_anchors_exactly_no_gradient_and_gates_their_full_one() -> None:
    experts = trained(LAYER)
    without = gradients(experts, general=None)
    medical = gradients(experts, general=torch.zeros(8, dtype=torch.bool))
    assert torch.equal(medical["anchors.A"], torch.zeros_like(medical["anchors.A"]))
    assert torch.equal(medical["anchors.B"], torch.zeros_like(medical["anchors.B"]))
    for name in ("gates", "x", "specialists.A", "specialists.B"):
        torch.testing.assert_close(medical[name], without[name])
    assert medical["gates"][:, 0].abs().min() > 0


def test_anchors_learn_from_the_general_tokens_of_a_mixed_batch_alone() -> None:
    experts = trained(LAYER)
    general = torch.tensor([True] * 3 + [False] * 5)
    mixed, everything = gradients(experts, general=general), gradients(experts, general=None)
    only_medical = gradients(trained_like(experts, isolate="none"), general=~general)
    assert not torch.equal(mixed["anchors.A"], everything["anchors.A"])
    assert mixed["anchors.A"].abs().sum() > 0
    torch.testing.assert_close(only_medical["anchors.A"], everything["anchors.A"])  # "none" isolates nothing


def trained_like(experts: LoRAExperts, *, isolate: Isolation) -> LoRAExperts:
    other = trained(LAYER, isolate=isolate)
    other.fill(*experts.stored())
    return other


def test_isolating_both_keeps_specialists_from_general_tokens() -> None:
    experts = trained(LAYER, isolate="both")
    general = gradients(experts, general=torch.ones(8, dtype=torch.bool))
    assert not general["specialists.A"].any()
    assert general["anchors.A"].abs().sum() > 0


def test_isolation_changes_no_value() -> None:
    experts = trained(LAYER, isolate="both")
    x, gates = torch.randn(8, 12, dtype=torch.float64), gates_for(LAYER, 8)
    general = torch.tensor([True, False] * 4)
    assert torch.equal(experts(x, gates, general=general), experts(x, gates))


def test_frozen_anchors_never_learn() -> None:
    experts = LoRAExperts(LINEAR, LAYER, anchor_mode="frozen")
    trainable = {name for name, parameter in experts.named_parameters() if parameter.requires_grad}
    assert trainable == {"specialists.A", "specialists.B"}
