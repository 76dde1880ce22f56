"""Find the vision tower's tensors in the checkpoint or in a transformers directory given by the caller."""

from pathlib import Path

from medmoe.model.conversion.options import Options
from medmoe.model.conversion.plan import Tower
from medmoe.model.conversion.upstream.config import UpstreamConfig
from medmoe.model.conversion.upstream.names import TOWER_PREFIX
from medmoe.model.conversion.weights.source_files import find_weights
from medmoe.model.conversion.weights.tensor_source import TensorSource
from medmoe.model.errors import CheckpointError, ConfigError

_PREFIX = "vision_model."


def find_tower(tensors: TensorSource, options: Options) -> tuple[Tower, UpstreamConfig | None]:
    """Return the tower, and its own config.json where it was given apart. Raises CheckpointError, ConfigError.

    Tensors inside the checkpoint go first: they were trained, or frozen, with the rest.
    """
    config = None if options.vision_tower is None else tower_config(options.vision_tower)
    if any(name.startswith(TOWER_PREFIX) for name in tensors.tensors):
        return Tower(tensors, TOWER_PREFIX), config
    if options.vision_tower is None:
        raise ConfigError("the checkpoint holds no vision tower: give its transformers directory with --vision-tower")
    return open_tower(options.vision_tower), config


def tower_config(directory: Path) -> UpstreamConfig:
    """Return what the config.json of such a directory says of the vision tower. Raises ConfigError."""
    config = UpstreamConfig.from_directory(directory)
    return config.section("vision_config") if "vision_config" in config else config


def open_tower(directory: Path) -> Tower:
    """Return the tower's tensors in a transformers directory of it or of a whole CLIP. Raises CheckpointError."""
    files = find_weights(directory)
    if any(path.suffix != ".safetensors" for path in files.files):
        raise CheckpointError(f"{directory} holds {files.names}; a vision tower is read from safetensors")
    apart = TensorSource(files)
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in apart.tensors) else ""
    return Tower(apart, prefix, apart=True)
