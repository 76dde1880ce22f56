"""Read and write a checkpoint directory with adapters beside the base model's files.

As strict as medmoe.model.checkpoint.io, and one thing more: an adapter is bound to the bytes of its base. On another
base of the same shape it would load, answer, and be wrong.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.checkpoint.staging import staged_directory
from medmoe.model.checkpoint.tensor_comparison import compare_tensors
from medmoe.model.checkpoint.tokenizer_files import tokenizer_files
from medmoe.model.config import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, CONFIG_FILE, MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.files.digest import checkpoint_file_sha256
from medmoe.model.files.licence import licence_file
from medmoe.model.files.weight_files import WeightFiles, damaged_weights, weights_sha256
from medmoe.model.lora.adapter_config import (
    AdapterConfig,
    BaseModelIdentity,
    architecture_sha256,
)
from medmoe.model.lora.attach import TrainableAdapters, attach_served, attach_trainable
from medmoe.model.lora.layout import tensor_dtype, tensor_shapes
from medmoe.model.medmoe import MedMoE


def base_identity(directory: Path) -> BaseModelIdentity:
    """Return the identity of the dense checkpoint in `directory`. Raises ConfigError or CheckpointError when it cannot
    be read.
    """
    config = MedMoEConfig.from_directory(directory)
    return BaseModelIdentity(
        name=config.name,
        config_sha256=architecture_sha256(config),
        weights_sha256=weights_sha256(directory),
    )


def has_adapter(directory: Path) -> bool:
    """Return whether the checkpoint holds adapters. Raises CheckpointError when it holds one of their two files."""
    found = [name for name in (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE) if os.path.lexists(directory / name)]
    if len(found) == 1:
        raise CheckpointError(f"{directory} holds {found[0]} without the other adapter file; add it or remove both")
    return bool(found)


def load_adapted(directory: Path, *, dtype: torch.dtype = torch.float32) -> MedMoE:
    """Return the model of `directory` in evaluation mode, with its adapters in the served form where it has any.

    Raises ConfigError for either configuration, CheckpointError for files or tensors that do not fit.
    """
    if not has_adapter(directory):
        return load_checkpoint(directory, dtype=dtype)
    config, tensors = read_adapter(directory)
    model = load_checkpoint(directory, dtype=dtype)
    attach_served(model, config, tensors)
    return model.eval()


def load_trainable(
    directory: Path,
    *,
    dropout: float = 0.05,
    expert_dropout: float = 0.1,
) -> tuple[MedMoE, TrainableAdapters]:
    """Return the model of `directory` in float32 with its adapters in the form in which they are trained.

    Raises as `load_adapted` does, CheckpointError also when there are no adapters.
    """
    if not has_adapter(directory):
        raise CheckpointError(f"{directory} holds no {ADAPTER_CONFIG_FILE}")
    config, tensors = read_adapter(directory)
    model = load_checkpoint(directory)
    adapters = attach_trainable(model, config, dropout=dropout, expert_dropout=expert_dropout)
    adapters.fill(tensors)
    return model, adapters


def read_adapter(directory: Path) -> tuple[AdapterConfig, dict[str, torch.Tensor]]:
    """Return the configuration and tensors of `directory`, checked against its base: every name, shape, dtype, and both
    digests.

    Raises ConfigError for a malformed or unfitting adapter_config.json, CheckpointError for everything else.
    """
    base = MedMoEConfig.from_directory(directory)
    config = AdapterConfig.from_directory(directory)
    wanted = tensor_shapes(config, base)
    _check_base(config, base, directory=directory)
    path = directory / ADAPTER_WEIGHTS_FILE
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
            compare_tensors(found, wanted, source=str(path), fits=ADAPTER_CONFIG_FILE)
            tensors = {name: file.get_tensor(name) for name in wanted}
    except (OSError, SafetensorError) as error:
        raise damaged_weights(path, error) from error
    _check_values(tensors, config, path=path)
    if config.adapter_sha256 not in (None, checkpoint_file_sha256(path)):
        raise CheckpointError(f"{path} is not the file that {ADAPTER_CONFIG_FILE} was written for")
    return config, tensors


def save_adapted(
    directory: Path,
    config: AdapterConfig,
    tensors: Mapping[str, torch.Tensor],
    *,
    base: Path,
    name: str | None = None,
    replace: bool = False,
) -> None:
    """Write a directory that serves: weights, tokenizer and licence of `base`, its config.json (but for `name`), and
    the adapter. Not its card and calibration, which describe the base alone.

    Whole or not at all; `replace` as in `save_checkpoint`. Raises ConfigError or CheckpointError when the adapter does
    not fit `base` or holds values that are not finite.
    """
    base_config = MedMoEConfig.from_directory(base)
    own = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
    target = directory / ADAPTER_WEIGHTS_FILE
    shapes = {key: tuple(value.shape) for key, value in own.items()}
    compare_tensors(shapes, tensor_shapes(config, base_config), source=str(target), fits=ADAPTER_CONFIG_FILE)
    _check_values(own, config, path=target)
    _check_base(config, base_config, directory=base)
    licence = licence_file(base)
    with staged_directory(directory, replace=replace) as staging:
        for source in (*WeightFiles.of(base).all, *tokenizer_files(base), *([licence] if licence else [])):
            shutil.copyfile(source, staging / source.name)
        renamed = base_config if name is None else base_config.model_copy(update={"name": name})
        (staging / CONFIG_FILE).write_text(renamed.to_json())
        save_file(own, staging / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})
        bound = config.model_copy(update={"adapter_sha256": checkpoint_file_sha256(staging / ADAPTER_WEIGHTS_FILE)})
        (staging / ADAPTER_CONFIG_FILE).write_text(bound.to_json())


def _check_base(config: AdapterConfig, base: MedMoEConfig, *, directory: Path) -> None:
    if config.base.config_sha256 != architecture_sha256(base):
        raise CheckpointError(f"{directory}: the adapter was trained on another architecture than {CONFIG_FILE} states")
    if config.base.weights_sha256 != weights_sha256(directory):
        raise CheckpointError(
            f"{directory}: the adapter was trained on other weights than {WeightFiles.of(directory).all[0].name} holds"
        )


def _check_values(tensors: Mapping[str, torch.Tensor], config: AdapterConfig, *, path: Path) -> None:
    for name, tensor in tensors.items():
        dtype = getattr(torch, tensor_dtype(name, config))
        if tensor.dtype != dtype:
            raise CheckpointError(f"{path}: {name} is stored as {tensor.dtype}, expected {dtype}")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite numbers")
