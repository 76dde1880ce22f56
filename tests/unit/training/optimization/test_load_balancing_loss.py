"""The load-balancing loss against sums by hand, and the logits that it is computed from."""

import pytest
import torch
from torch import nn

from medmoe.model.language_model import build_language_model
from medmoe.model.moe import Router
from medmoe.training.optimization.load_balancing_loss import collect_router_logits, load_balancing_loss
from tests.support.checkpoints.tiny import tiny_config


def by_hand(logits: torch.Tensor, mask: list[int]) -> float:
    experts = logits.shape[1]
    counted = [row.softmax(0) for row, counts in zip(logits, mask, strict=True) if counts]
    total = 0.0
    for expert in range(experts):
        probability = sum(float(p[expert]) for p in counted) / len(counted)
        chosen = sum(int(p.argmax()) == expert for p in counted) / len(counted)
        total += probability * chosen
    return experts * total


def test_the_loss_is_the_papers_sum_over_the_tokens_that_count() -> None:
    torch.manual_seed(0)
    logits = torch.randn(12, 4) * 2
    mask = [1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1]
    assert load_balancing_loss(logits).item() == pytest.approx(by_hand(logits, [1] * 12))
    ours = load_balancing_loss(logits, mask=torch.tensor(mask).view(3, 4))
    assert ours.item() == pytest.approx(by_hand(logits, mask))
    assert ours.item() == pytest.approx(load_balancing_loss(logits, mask=torch.tensor(mask) > 0).item())
    assert abs(by_hand(logits, mask) - by_hand(logits, [1] * 12)) > 0.01


def test_mixed_precision_does_not_round_it() -> None:
    logits = torch.randn(50, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = load_balancing_loss(logits)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, load_balancing_loss(logits))


def test_it_is_one_when_even_and_the_number_of_experts_when_one_takes_all() -> None:
    even = torch.eye(4).repeat(5, 1) * 30
    assert load_balancing_loss(even).item() == pytest.approx(1)
    assert load_balancing_loss(torch.tensor([[30.0, 0.0, 0.0, 0.0]]).expand(9, 4)).item() == pytest.approx(4)


def test_descending_it_evens_out_the_load() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 8)
    weight = nn.Parameter(torch.zeros(4, 8))
    bias = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    nn.init.normal_(weight, std=0.3)
    optimizer = torch.optim.SGD([weight, bias], lr=0.3)

    def largest_share() -> float:
        return torch.bincount((x @ weight.T + bias).argmax(1), minlength=4).max().item() / 400

    before = largest_share()
    for _ in range(100):
        optimizer.zero_grad()
        load_balancing_loss(x @ weight.T + bias).backward()
        optimizer.step()
    assert before > 0.6
    assert largest_share() < 0.35


def test_nothing_that_counts_costs_nothing() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = load_balancing_loss(logits, mask=torch.zeros(3))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_a_mask_of_another_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="5 tokens does not fit the logits of 6"):
        load_balancing_loss(torch.zeros(6, 4), mask=torch.ones(5))


@pytest.mark.parametrize("training", [True, False])
def test_logits_of_the_last_forward_are_collected_by_layer(training: bool) -> None:
    torch.manual_seed(0)
    config = tiny_config().text_config
    model = build_language_model(config).train(training)
    routers = {name: module for name, module in model.named_modules() if isinstance(module, Router)}
    for router in routers.values():
        nn.init.normal_(router.weight)
    inputs = torch.randn(2, 7, config.hidden_size)
    with collect_router_logits(model) as logits:
        model(inputs_embeds=torch.randn(1, 3, config.hidden_size))
        output = model(inputs_embeds=inputs).logits
    assert list(logits) == list(routers) == ["model.layers.0.mlp.gate", "model.layers.2.mlp.gate"]
    assert all(layer.shape == (14, 4) and layer.dtype == torch.float32 for layer in logits.values())
    # Layer 0 sees both rows of the batch one after the other.
    normed = model.model.layers[0].post_attention_layernorm
    seen: list[torch.Tensor] = []
    handle = normed.register_forward_hook(lambda module, args, out: seen.append(out))
    assert torch.equal(model(inputs_embeds=inputs).logits, output)
    handle.remove()
    expected = routers["model.layers.0.mlp.gate"].logits(seen[0].reshape(14, -1))
    torch.testing.assert_close(logits["model.layers.0.mlp.gate"], expected)
    # The graph leads to the gates, and to the gate below through the layers between.
    sum(load_balancing_loss(layer) for layer in logits.values()).backward()
    assert all(router.weight.grad.any() for router in routers.values())


def test_nothing_is_kept_after_the_block_or_an_error_in_it() -> None:
    config = tiny_config().text_config
    model = build_language_model(config)
    inputs = torch.randn(1, 3, config.hidden_size)
    with collect_router_logits(model) as collected:
        pass
    model(inputs_embeds=inputs)
    assert not collected
    with pytest.raises(RuntimeError), collect_router_logits(model):
        model(inputs_embeds=inputs[..., :5])
    assert all(module.on_logits is None for module in model.modules() if isinstance(module, Router))


def test_checkpointed_layers_give_the_same_gradients() -> None:
    """Layers recomputed in the backward neither lose the logits' graph nor record anything twice."""
    torch.manual_seed(0)
    config = tiny_config().text_config
    model = build_language_model(config).train()
    for module in model.modules():
        if isinstance(module, Router):
            nn.init.normal_(module.weight)
    inputs = torch.randn(2, 7, config.hidden_size)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        with collect_router_logits(model) as logits:
            answer = model(inputs_embeds=inputs).logits.square().mean()
        (answer + sum(load_balancing_loss(layer) for layer in logits.values())).backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if "mlp" in name}

    plain = gradients()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, plain[name])
