"""Compute the digest of a checkpoint's vision tower from its files. Torch-free."""

import hashlib
from pathlib import Path

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.files.weight_files import WeightFiles

_TOWER = "vision_tower."


def tower_sha256(directory: Path, config: MedMoEConfig) -> str:
    """Return the hexadecimal SHA-256 of all that decides an image's features, whatever file holds it.

    That is the tower's tensors as they are stored, its configuration and the image processor's. Raises CheckpointError
    when the weights cannot be read.
    """
    digest = hashlib.sha256(config.vision_config.model_dump_json(exclude_defaults=True).encode())
    digest.update(config.image_processor.model_dump_json(exclude_defaults=True).encode())
    try:
        for name, tensor in sorted(WeightFiles.of(directory).tensors().items()):
            if name.startswith(_TOWER):
                digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
                digest.update(tensor.read())
    except OSError as error:
        raise CheckpointError(f"the vision tower of {directory} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
