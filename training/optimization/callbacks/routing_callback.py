"""Log where the routers of an MoE send tokens during training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from medmoe.model.medmoe import MedMoE
from medmoe.model.moe import MoE
from medmoe.training.optimization.callbacks.throughput import Reduce


class RoutingCallback(TrainerCallback):
    """Record routing at the steps that are logged. Padding tokens are routed too, and are not counted."""

    def __init__(self, model: MedMoE, *, objective: nn.Module) -> None:
        """`objective`: the module that is called with the collator's batch and calls the model."""
        layers = enumerate(model.language_model.model.layers)
        self._gates = {index: layer.mlp.gate for index, layer in layers if isinstance(layer.mlp, MoE)}
        self._objective = objective
        self._mask: torch.Tensor | None = None
        self._hooks: list[Any] = []
        self._load: dict[int, torch.Tensor] = {}
        """By layer: choices of each expert, then the sum of entropies and the number of tokens; [E + 2]."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step + 1
        if self._gates and (step == 1 or step % state.logging_steps == 0 or step == state.max_steps):
            self._load = {}
            self._hooks = [self._objective.register_forward_pre_hook(self._see_mask, with_kwargs=True)]
            for index, gate in self._gates.items():
                self._hooks.append(gate.register_forward_hook(self._see_gate(index)))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def figures(self, reduce: Reduce) -> dict[str, float]:
        """Return figures of the last step, over all processes: `layer_L/expert_E` shares that sum to 1,
        `layer_L/entropy` in nats (the mean over tokens; log E is uniform, 0 a sure choice).
        """
        figures = {}
        for index, load in sorted(self._load.items()):
            *chosen, entropy, tokens = reduce(load).tolist()
            for expert, choices in enumerate(chosen):
                figures[f"layer_{index}/expert_{expert}"] = choices / max(sum(chosen), 1)
            figures[f"layer_{index}/entropy"] = entropy / max(tokens, 1)
        self._load = {}
        return figures

    def _see_mask(self, _: nn.Module, args: Sequence[Any], batch: dict[str, Any]) -> None:
        self._mask = batch["attention_mask"].bool().reshape(-1)

    def _see_gate(self, index: int) -> Any:
        @torch.no_grad()
        def see(gate: Any, inputs: Any, output: Any) -> None:
            assert self._mask is not None, "the objective has just been called"
            with torch.autocast(inputs[0].device.type, enabled=False):
                logits_TE = gate.logits(inputs[0])[self._mask]
            experts_TK = output[1][self._mask]
            p_TE = logits_TE.softmax(dim=-1)
            choices_E = torch.bincount(experts_TK.reshape(-1), minlength=p_TE.shape[-1]).float()
            entropy = -torch.special.xlogy(p_TE, p_TE).sum()
            seen = torch.cat([choices_E, torch.stack([entropy, entropy.new_tensor(len(p_TE))])])
            self._load[index] = self._load[index] + seen if index in self._load else seen

        return see
