"""Support parameters that are sharded over the processes (FSDP2, chosen in accelerate's configuration)."""

from typing import Any

import torch
from torch.distributed.fsdp import StateDictType
from torch.distributed.tensor import DTensor, distribute_tensor

from medmoe.model.errors import ConfigError
from medmoe.model.medmoe import MedMoE

_PREFIX = "model."
"""What stands before the names of the model's parameters in an objective."""


def check_fsdp(plugin: Any, *, adapters: bool) -> None:
    """Raise ConfigError for settings of accelerate's `plugin` that are untested or pickle code into checkpoints."""
    if adapters:
        raise ConfigError("adapters are not trained in shards: launch with DistributedDataParallel")
    if plugin.fsdp_version != 2:
        raise ConfigError("FSDP 1 is not supported: set fsdp_version to 2 in accelerate's configuration")
    if plugin.state_dict_type != StateDictType.FULL_STATE_DICT:
        raise ConfigError("set fsdp_state_dict_type to FULL_STATE_DICT in accelerate's configuration")


def fill(parameter: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a whole `value` into a parameter, or this process's part of it into its shard."""
    if isinstance(parameter, DTensor):
        # Every process has read the same value: none sends it to the others.
        value = distribute_tensor(
            value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
        )
    with torch.no_grad():
        parameter.copy_(value)


def make_whole(model: MedMoE, tensors: dict[str, torch.Tensor]) -> None:
    """Give `model`, whose parameters are shards, whole ones again: those of `tensors`, an objective's that holds it."""
    whole = MedMoE(model.config)
    whole.load_state_dict({name.removeprefix(_PREFIX): value for name, value in tensors.items()})
    for name, part in whole.named_children():
        setattr(model, name, part)
