"""Convert tensors of adapter_model.safetensors to the weights of the served form, whole or for one rank."""

from collections.abc import Mapping

import torch

from medmoe.model.lora.adapter_config import AdapterConfig
from medmoe.model.lora.layout import BlockShape, router_names
from medmoe.model.lora.served_adapter import shrink_rows


def export_block(
    config: AdapterConfig,
    tensors: Mapping[str, torch.Tensor],
    *,
    layer: int,
    block: BlockShape,
) -> dict[str, torch.Tensor]:
    """Return what `GatedLoRA.load` takes for one block of one layer.

    The temperature is folded into the router's rows and alpha / rank into B; both in at least float32.
    """
    experts = config.layers[layer]
    routers = [_folded(tensors, name, config.tau_clamp) for name in router_names(config, block, layer=layer)]
    per_linear = config.router_scope == "module"
    entry_routers, exit_routers = (routers[:-1], routers[-1:]) if per_linear else (routers, [])
    scale = torch.tensor(experts.scales)[list(experts.segment)]

    def a(name: str) -> torch.Tensor:
        return tensors[f"layers.{layer}.{name}.lora_A"]

    def b(name: str) -> torch.Tensor:
        stored = tensors[f"layers.{layer}.{name}.lora_B"]
        return stored * scale.to(torch.promote_types(stored.dtype, torch.float32))

    exported = {
        "shrink": _stack([a(linear.name) for linear in block.entry]),
        "exit_shrink": _stack([a(block.exit.name)]),
        "exit_expand": b(block.exit.name),
        **{f"expand.{linear.name}": b(linear.name) for linear in block.entry},
    }
    if entry_routers:
        exported["router"] = torch.cat(entry_routers)
    if exit_routers:
        exported["exit_router"] = exit_routers[0]
    return exported


def shard(
    exported: Mapping[str, torch.Tensor], *, rows: Mapping[str, slice], columns: slice
) -> dict[str, torch.Tensor]:
    """Return one rank's part under tensor parallelism.

    `rows`: its slice of each entry linear's output (column-parallel base); `columns`: its slice of the exit linear's
    input (row-parallel base). The entry's shrink and router and the exit's expand are the same on every rank.
    """
    part = dict(exported)
    for name, rows_of in rows.items():
        part[f"expand.{name}"] = exported[f"expand.{name}"][rows_of]
    for name in ("exit_shrink", "exit_router"):
        if name in part:
            part[name] = exported[name][:, columns]
    return part


def _folded(tensors: Mapping[str, torch.Tensor], name: str, tau_clamp: tuple[float, float]) -> torch.Tensor:
    tau = tensors[f"{name}.log_tau"].exp().clamp(*tau_clamp)
    return tensors[f"{name}.weight"] / tau


def _stack(parts: list[torch.Tensor]) -> torch.Tensor:
    rows = sum(len(part) for part in parts)
    padding = parts[0].new_zeros(shrink_rows(rows) - rows, parts[0].shape[1])
    return torch.cat([*parts, padding])
