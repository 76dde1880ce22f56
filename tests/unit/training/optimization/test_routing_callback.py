"""What is seen of routers while they train."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from medmoe.model.medmoe import MedMoE
from medmoe.training.optimization.callbacks.routing_callback import RoutingCallback
from tests.support.checkpoints.tiny import tiny_config

MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0, 0]])


class Calls(nn.Module):
    """A stage's objective, of which only the call matters."""

    def __init__(self, model: MedMoE) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: torch.Tensor) -> torch.Tensor:
        return self.model.hidden_states(batch["input_ids"], batch["attention_mask"], batch["features"])


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, logging_steps=10, max_steps=95)


@pytest.fixture
def objective() -> Calls:
    torch.manual_seed(0)
    model = MedMoE(tiny_config(num_experts_per_tok=2, renormalize=True)).train()
    for layer in (0, 2):
        nn.init.normal_(model.language_model.model.layers[layer].mlp.gate.weight)
    return Calls(model)


def batch(objective: Calls) -> dict[str, torch.Tensor]:
    ids = torch.arange(16).reshape(2, 8) + 20
    ids[:, : objective.model.config.num_image_tokens] = objective.model.config.image_token_id
    return {"input_ids": ids, "attention_mask": MASK, "features": torch.rand(2, 16, 32)}


def test_shares_and_entropy_are_those_of_the_tokens_alone(objective: Calls) -> None:
    watch = RoutingCallback(objective.model, objective=objective)
    gates = {layer: objective.model.language_model.model.layers[layer].mlp.gate for layer in (0, 2)}
    inputs: dict[int, torch.Tensor] = {}
    for layer, gate in gates.items():
        gate.register_forward_hook(lambda _, given, __, layer=layer: inputs.update({layer: given[0]}))
    watch.on_step_begin(None, state(9), None)
    objective(**batch(objective))
    watch.on_step_end(None, state(10), None)
    figures = watch.figures(lambda tensor: 2 * tensor)
    for layer, gate in gates.items():
        counts, entropies = [0] * 4, []
        for token, keep in zip(inputs[layer], MASK.reshape(-1), strict=True):
            if keep:
                for expert in gate(token[None])[1][0]:
                    counts[int(expert)] += 1
                p = gate.logits(token[None])[0].softmax(dim=-1)
                entropies.append(float(-(p * p.log()).sum().detach()))
        for expert in range(4):
            assert figures[f"layer_{layer}/expert_{expert}"] == pytest.approx(counts[expert] / 26)
        assert figures[f"layer_{layer}/entropy"] == pytest.approx(sum(entropies) / 13, rel=1e-5)
    assert set(figures) == {
        f"layer_{n}/{what}" for n in (0, 2) for what in ("entropy", *(f"expert_{e}" for e in range(4)))
    }


@pytest.mark.parametrize(("before", "looks"), [(0, True), (3, False), (9, True), (94, True)])
def test_only_steps_that_are_logged_are_looked_at(objective: Calls, before: int, looks: bool) -> None:
    watch = RoutingCallback(objective.model, objective=objective)
    watch.on_step_begin(None, state(before), None)
    objective(**batch(objective))
    watch.on_step_end(None, state(before + 1), None)
    assert bool(watch.figures(lambda tensor: tensor)) is looks
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in objective.modules())
