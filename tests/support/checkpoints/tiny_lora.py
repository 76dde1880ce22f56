"""Make adapters for the tiny checkpoint: small ranks of every kind, and weights large enough to matter."""

from pathlib import Path
from typing import Any

import torch

from medmoe.model.config import MedMoEConfig
from medmoe.model.lora.adapter_config import AdapterConfig, AnchorMode, BaseModelIdentity, LayerExperts, RouterScope
from medmoe.model.lora.layout import target_modules, tensor_shapes
from medmoe.model.lora.schedule import layer_of_ranks
from tests.support.checkpoints.tiny import save_tiny_checkpoint

_ANY = "0" * 64


def tiny_adapter(
    model: MedMoEConfig,
    /,
    *,
    attention: bool = True,
    router_scope: RouterScope = "block",
    anchor_mode: AnchorMode = "replay",
    layers: tuple[LayerExperts, ...] | None = None,
    **fields: Any,
) -> AdapterConfig:
    """Return a config of three layers with 2, 3 and 4 experts of unequal, odd ranks."""
    anchor = 0 if anchor_mode == "null" else 2
    default = (
        layer_of_ranks((anchor, 3), n_anchor=1),
        layer_of_ranks((anchor, 4, 2), n_anchor=1),
        layer_of_ranks((anchor, anchor, 8, 4), n_anchor=2),
    )
    identity = BaseModelIdentity(name="tiny", config_sha256=_ANY, weights_sha256=_ANY)
    return AdapterConfig(
        **{
            "base": identity,
            "dtype": "float32",
            "target_modules": target_modules(model.text_config, attention=attention),
            "router_scope": router_scope,
            "anchor_mode": anchor_mode,
            "layers": layers or default,
            **fields,
        }
    )


def random_tensors(config: AdapterConfig, base: MedMoEConfig, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return adapter tensors as after training: gates differ by token, temperatures are not 1."""
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, config.dtype)
    tensors = {}
    for name, shape in tensor_shapes(config, base).items():
        values = torch.randn(shape, generator=generator)
        if ".router." in name:
            tensors[name] = values * (0.2 if name.endswith("log_tau") else 0.5)
        else:
            tensors[name] = (values * 0.2).to(dtype)
    return tensors


def save_tiny_adapted(directory: Path, *, model_type: str = "llama", seed: int = 0, **adapter: Any) -> Path:
    """Write a dense tiny checkpoint and the same with random adapters; `adapter` is what tiny_adapter takes."""
    from medmoe.model.lora.checkpoint import base_identity, save_adapted

    base = save_tiny_checkpoint(
        directory.parent / f"{directory.name}-base", seed=seed, model_type=model_type, moe_layers=()
    )
    model_config = MedMoEConfig.from_directory(base)
    config = tiny_adapter(model_config, base=base_identity(base), **adapter)
    save_adapted(directory, config, random_tensors(config, model_config, seed=seed), base=base)
    return directory
