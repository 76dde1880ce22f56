"""Writing and reading a checkpoint directory. Strict in both directions, and never a half-written one.

Only safetensors: nothing here can execute what it reads.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from medmoe.model.checkpoint.staging import staged_directory
from medmoe.model.config import CONFIG_FILE, WEIGHTS_FILE, MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.medmoe import MedMoE

_SHOWN = 5


def save_checkpoint(model: MedMoE, directory: Path, *, tokenizer_files: Iterable[Path]) -> None:
    """Write the directory whole or not at all: everything goes to a sibling first, which then takes its place.

    Weights are stored in `config.dtype`. Raises CheckpointError for weights that are not finite.
    """
    config = model.config
    with staged_directory(directory) as staging:
        dtype = getattr(torch, config.dtype)
        tensors = {name: value.to(dtype).contiguous().cpu() for name, value in model_tensors(model).items()}
        if bad := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
            raise CheckpointError(f"refusing to save weights that are not finite: {_list(bad)}")
        save_file(tensors, staging / WEIGHTS_FILE, metadata={"format": "pt"})
        (staging / CONFIG_FILE).write_text(config.to_json())
        for source in tokenizer_files:
            shutil.copyfile(source, staging / source.name)


def load_checkpoint(directory: Path, *, dtype: torch.dtype = torch.float32) -> MedMoE:
    """Build the model of `directory` and fill every parameter from its safetensors, in evaluation mode.

    Raises ConfigError for config.json, CheckpointError naming every missing, unknown, misshapen or not finite tensor.
    """
    config = MedMoEConfig.from_directory(directory)
    path = directory / WEIGHTS_FILE
    # Before anything is allocated: a config.json that promises more than the file holds costs nothing.
    check_weights(directory, config)
    model = MedMoE(config)
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            for name, parameter in model_tensors(model).items():
                parameter.copy_(_finite(file.get_tensor(name), name=name))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors") from error
    return model.to(dtype).eval()


def check_weights(directory: Path, config: MedMoEConfig) -> None:
    """Whether the header of the weights fits `config`; reads no tensor.

    Raises CheckpointError for a file that is missing or damaged, or naming every missing, unknown or misshapen tensor.
    """
    path = directory / WEIGHTS_FILE
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors") from error
    compare_tensors(found, expected_tensors(config), source=str(path))


def _finite(tensor: torch.Tensor, *, name: str) -> torch.Tensor:
    if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
        raise CheckpointError(f"{name} holds values that are not finite numbers")
    return tensor


def model_tensors(model: MedMoE) -> dict[str, torch.Tensor]:
    """Every stored tensor by its name on disk; a tied output head is stored once, as the embedding."""
    tensors = model.state_dict()
    if model.config.text_config.tie_word_embeddings:
        tensors.pop("language_model.lm_head.weight", None)
    return dict(tensors)


def expected_tensors(config: MedMoEConfig) -> dict[str, torch.Tensor]:
    """Name and shape of every tensor a checkpoint of `config` must hold, as tensors without storage."""
    with torch.device("meta"):
        return model_tensors(MedMoE(config))


def compare_tensors(found: dict[str, tuple[int, ...]], wanted: dict[str, torch.Tensor], *, source: str) -> None:
    """Raises CheckpointError naming every tensor of `source` that is missing, unknown or misshapen."""
    problems = []
    if missing := sorted(wanted.keys() - found.keys()):
        problems.append(f"missing: {_list(missing)}")
    if unknown := sorted(found.keys() - wanted.keys()):
        problems.append(f"unknown: {_list(unknown)}")
    misshapen = [
        f"{name} is {found[name]}, expected {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name] != tuple(wanted[name].shape)
    ]
    if misshapen:
        problems.append(f"misshapen: {_list(misshapen)}")
    if problems:
        raise CheckpointError(f"{source} does not fit config.json; " + "; ".join(problems))


def _list(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
