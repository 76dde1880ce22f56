"""Read a language model from a transformers directory: config.json, safetensors (sharded too) and its tokenizer.

Nothing in it is executed: `auto_map` is not looked at, pickles are refused.
"""

from pathlib import Path

from medmoe.model.config import CONFIG_FILE
from medmoe.model.conversion.report import Report
from medmoe.model.conversion.tokenizer.source import read_tokenizer
from medmoe.model.conversion.upstream.config import UpstreamConfig
from medmoe.model.conversion.upstream.text_backbone import Backbone, text_fields
from medmoe.model.conversion.weights.source_files import find_weights, read_json
from medmoe.model.conversion.weights.tensor_source import TensorSource
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.digest import file_sha256
from medmoe.model.files.terminal_safe import listed, terminal_safe
from medmoe.training.pretrained.language_model_source import LanguageModelSource

_BACKBONES: dict[str, Backbone] = {"llama": "llama", "phi": "phi", "stablelm": "stablelm"}
_PLAIN_ROPE = {"rope_type", "rope_theta", "partial_rotary_factor"}


def read_language_model_directory(directory: Path) -> LanguageModelSource:
    """Return the model in `directory`.

    Raises ConfigError for an unsupported model, CheckpointError for files that are missing or damaged.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is neither a directory nor a wheel")
    config = _read_config(directory)
    backbone = _BACKBONES.get(config.text("model_type") or "")
    if backbone is None:
        said = terminal_safe(repr(config.text("model_type")))
        raise ConfigError(f"{CONFIG_FILE}: model_type {said} is not supported; supported: {listed(sorted(_BACKBONES))}")
    files = find_weights(directory)
    if any(path.suffix != ".safetensors" for path in files.files):
        raise CheckpointError(f"{directory} holds {files.names}; a language model is read from safetensors alone")
    tensors = TensorSource(files)
    if unknown := sorted(name for name, info in tensors.tensors.items() if info.dtype is None):
        raise CheckpointError(f"not floating point: {listed(unknown)}")
    digests = ", ".join(f"{path.name} `{file_sha256(path)}`" for path in files.files)
    return LanguageModelSource(
        name=directory.name,
        origin=f"The language model starts from {terminal_safe(directory.name)} ({backbone}; SHA-256 of {digests}).",
        fields=text_fields(backbone, tensors.shapes, config, Report()),
        shapes=tensors.shapes,
        read=tensors.read,
        tokenizer=read_tokenizer(directory),
    )


def _read_config(directory: Path) -> UpstreamConfig:
    try:
        fields = read_json(directory, CONFIG_FILE)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    rope = fields.get("rope_parameters")
    # Since version 5 transformers writes an object where it wrote fields; what scales positions is left to be refused.
    if isinstance(rope, dict) and rope.keys() <= _PLAIN_ROPE and rope.get("rope_type", "default") == "default":
        fields |= {name: value for name, value in rope.items() if name != "rope_type"}
        del fields["rope_parameters"]
    return UpstreamConfig(fields, name=CONFIG_FILE)
