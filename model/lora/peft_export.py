"""Export adapters with fixed gates as an ordinary PEFT LoRA, for servers without gates. APPROXIMATE.

Every token gets the same mixture of experts: the mean gate over a calibration set. Routing by token is lost; measure
before use. Shape letters: B batch, L length, N experts, R sum of the ranks, I input and O output width of a linear.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from medmoe.model.config import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, MedMoEConfig
from medmoe.model.lora.adapter_config import AdapterConfig
from medmoe.model.lora.attach import TrainableAdapters
from medmoe.model.lora.layout import adapted_blocks

_NOTICE = (
    "APPROXIMATE export of a Med-MoE-LoRA adapter: the gates, which depend on the token in the original, are fixed to "
    "their mean over a calibration set. Outputs differ from the original's."
)


class MeanGates:
    """Accumulate the mean gate of every router over the tokens of a calibration set."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._tokens = 0

    def add(self, adapters: TrainableAdapters, *, mask: torch.Tensor) -> None:
        """Count the tokens that `mask` (bool [B, L]) marks in the last forward. Raises ValueError without one."""
        for name, state in adapters.routers().items():
            if state.gates is None:
                raise ValueError("run the calibration batch through the model first")
            total = state.gates.detach()[mask].double().sum(dim=0).cpu()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._tokens += int(mask.sum())

    def result(self) -> dict[str, torch.Tensor]:
        """Return the mean gates [N] by router's prefix on disk, float32; they sum to 1."""
        return {name: (total / self._tokens).float() for name, total in self._sums.items()}


def static_products(
    config: AdapterConfig, base: MedMoEConfig, tensors: Mapping[str, torch.Tensor], gates: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield `layers.L.BLOCK.NAME`, A [R, I] and B diag(c g) [O, R] of every adapted linear, in float32.

    `gates`: mean gates [N] by router, from `MeanGates.result`.
    """
    for block in adapted_blocks(config, base):
        for index, layer in enumerate(config.layers):
            segment = list(layer.segment)
            scale = torch.tensor(layer.scales)[segment]
            for linear in block.linears:
                owner = block.name if config.router_scope == "block" else linear.name
                gate = gates[f"layers.{index}.{owner}.router"][segment] if layer.n_experts > 1 else torch.ones(1)
                stored = f"layers.{index}.{linear.name}"
                lora_b = tensors[f"{stored}.lora_B"].float() * (scale * gate)
                yield f"layers.{index}.{block.place}.{linear.name}", tensors[f"{stored}.lora_A"].float(), lora_b


def export_peft(
    directory: Path,
    config: AdapterConfig,
    base: MedMoEConfig,
    tensors: Mapping[str, torch.Tensor],
    gates: Mapping[str, torch.Tensor],
) -> None:
    """Write an ordinary PEFT LoRA for the language model: one rank everywhere (padded with zeros), alpha = rank.

    For servers without per-layer ranks. The directory must be new or empty.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty")
    rank = max(layer.total_rank for layer in config.layers)
    dtype = getattr(torch, config.dtype)
    stored = {}
    for name, lora_a, lora_b in static_products(config, base, tensors, gates):
        missing = rank - len(lora_a)
        prefix = f"base_model.model.model.{name}"
        stored[f"{prefix}.lora_A.weight"] = torch.nn.functional.pad(lora_a, (0, 0, 0, missing)).to(dtype)
        stored[f"{prefix}.lora_B.weight"] = torch.nn.functional.pad(lora_b, (0, missing)).to(dtype)
    peft = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.base.name,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": list(config.target_modules),
    }
    weights = directory / ADAPTER_WEIGHTS_FILE
    save_file(stored, weights, metadata={"format": "pt", "notice": _NOTICE})
    # safetensors makes private files; an adapter is read by whichever user serves it.
    weights.chmod(0o644)
    (directory / ADAPTER_CONFIG_FILE).write_text(json.dumps(peft, indent=2) + "\n")
    (directory / "README.md").write_text(f"# {config.base.name}: static-gate LoRA\n\n{_NOTICE}\n")
