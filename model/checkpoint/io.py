"""Write and read a checkpoint directory, whole or not at all.

Only safetensors: nothing here can execute what it reads.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from medmoe.model.checkpoint.staging import staged_directory
from medmoe.model.checkpoint.tensor_comparison import compare_tensors, not_floating, too_few
from medmoe.model.config import CONFIG_FILE, MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.files.terminal_safe import listed
from medmoe.model.files.weight_files import (
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    WeightFiles,
    damaged_weights,
    shard_name,
)
from medmoe.model.medmoe import MedMoE

_TOWER = "vision_tower."


def save_checkpoint(
    model: MedMoE,
    directory: Path,
    *,
    tokenizer_files: Iterable[Path],
    replace: bool = False,
    tower_shard: bool = False,
) -> None:
    """Write the directory whole or not at all: everything goes to a sibling first, which then takes its place.

    Weights are stored in `config.dtype`. With `tower_shard`, the vision tower has its own shard, whose bytes depend
    on the tower alone. Raises CheckpointError for weights that are not finite, or when the directory holds something
    already; with `replace`, only when that is not an older checkpoint alone.
    """
    config = model.config
    with staged_directory(directory, replace=replace) as staging:
        dtype = getattr(torch, config.dtype)
        tensors = {name: value.to(dtype).contiguous().cpu() for name, value in model_tensors(model).items()}
        if bad := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
            raise CheckpointError(f"refusing to save weights that are not finite: {listed(bad)}")
        if tower_shard:
            _save_shards(tensors, staging)
        else:
            save_file(tensors, staging / WEIGHTS_FILE, metadata={"format": "pt"})
        (staging / CONFIG_FILE).write_text(config.to_json())
        for source in tokenizer_files:
            shutil.copyfile(source, staging / source.name)


def load_checkpoint(directory: Path, *, dtype: torch.dtype = torch.float32) -> MedMoE:
    """Build the model of `directory` and fill every parameter from its safetensors, in evaluation mode.

    Raises ConfigError for config.json, CheckpointError naming every missing, unknown, misshapen or not finite tensor.
    """
    config = MedMoEConfig.from_directory(directory)
    # Before anything is allocated: a config.json that promises more than the files hold costs nothing.
    check_weights(directory, config)
    model = MedMoE(config)
    parameters = model_tensors(model)
    for path in WeightFiles.of(directory).files:
        try:
            with safe_open(path, framework="pt") as file, torch.no_grad():
                for name in file.keys():  # noqa: SIM118 - not a dict
                    parameters[name].copy_(file.get_tensor(name))
                    if not torch.isfinite(parameters[name]).all():
                        raise CheckpointError(f"{path}: {name} holds values that are not finite in float32")
        except (OSError, SafetensorError) as error:
            raise damaged_weights(path, error) from error
    return model.to(dtype).eval()


def check_weights(directory: Path, config: MedMoEConfig) -> None:
    """Compare the headers of the weights with `config`; read no tensor.

    Raises CheckpointError for a file that is missing or damaged, or naming every missing, unknown or misshapen tensor.
    """
    weights = WeightFiles.of(directory)
    path = weights.index or weights.files[0]
    found = weights.tensors()
    if problem := too_few(found, config):
        raise CheckpointError(f"{path}: {problem}")
    shapes = {name: tensor.shape for name, tensor in found.items()}
    compare_tensors(shapes, expected_shapes(config), source=str(path))
    if problem := not_floating({name: tensor.dtype for name, tensor in found.items()}):
        raise CheckpointError(f"{path}: {problem}")


def _save_shards(tensors: Mapping[str, torch.Tensor], directory: Path) -> None:
    """Write the vision tower as the first shard, everything else as the second, and the index."""
    shard_of = {name: shard_name(1 if name.startswith(_TOWER) else 2, count=2) for name in tensors}
    for shard in sorted(set(shard_of.values())):
        part = {name: value for name, value in tensors.items() if shard_of[name] == shard}
        save_file(part, directory / shard, metadata={"format": "pt"})
    size = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(shard_of.items()))}
    (directory / WEIGHTS_INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def model_tensors(model: MedMoE) -> dict[str, torch.Tensor]:
    """Return every stored tensor by its name on disk; a tied output head is stored once, as the embedding."""
    tensors = model.state_dict()
    if model.config.text_config.tie_word_embeddings:
        tensors.pop("language_model.lm_head.weight", None)
    return dict(tensors)


# vLLM asks 16 times while an engine starts.
@lru_cache(maxsize=1)
def expected_shapes(config: MedMoEConfig) -> Mapping[str, tuple[int, ...]]:
    """Return the name and shape of every tensor a checkpoint of `config` must hold."""
    return {name: tuple(tensor.shape) for name, tensor in expected_tensors(config).items()}


def expected_tensors(config: MedMoEConfig) -> dict[str, torch.Tensor]:
    """Return every tensor that a checkpoint of `config` must hold by name, without storage."""
    with torch.device("meta"):
        return model_tensors(MedMoE(config))
