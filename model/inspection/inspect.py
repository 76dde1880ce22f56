"""Inspect a checkpoint by its config.json, the header of its weights and the values of its gates. Torch-free."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from medmoe.model.config import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, CONFIG_FILE, MedMoEConfig
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.bounded_read import read_bounded
from medmoe.model.files.digest import checkpoint_file_sha256
from medmoe.model.files.licence import stated_licence
from medmoe.model.files.router_fingerprint import RouterFingerprint, is_gate
from medmoe.model.files.terminal_safe import listed, terminal_safe
from medmoe.model.files.weight_files import StoredTensor, WeightFiles
from medmoe.model.inspection.verify import Tensors, verify_adapter, verify_weights
from medmoe.model.lora.adapter_config import AdapterConfig

PARTS = ("vision_tower", "projector", "language_model")


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters. `activated` leaves out the experts that a token does not go through."""

    vision_tower: int
    projector: int
    language_model: int
    total: int
    expert: int
    activated_language_model: int
    activated: int


@dataclass(frozen=True)
class Experts:
    """Facts about the MoE layers of a checkpoint."""

    layers: tuple[int, ...]
    experts: int
    experts_per_token: int
    renormalized: bool
    gate_bias: bool
    shared_expert: bool
    residual: bool
    gates: str
    """Says whether one router serves all layers."""
    domains: tuple[str, ...]


@dataclass(frozen=True)
class Adapter:
    """Facts about the LoRA experts of a checkpoint."""

    parameters: int
    target_modules: tuple[str, ...]
    experts_per_layer: tuple[int, ...]
    ranks_per_layer: tuple[int, ...]
    """Sum of the experts' ranks in each layer."""
    router_scope: str
    anchors: str


@dataclass(frozen=True)
class Inspection:
    """The report of `medmoe inspect`."""

    name: str
    family: str
    backbone: str
    layers: int
    context: int
    vision_tower: str
    image_tokens: int
    moe: Experts | None
    adapter: Adapter | None
    parameters: ParameterCount
    tensors: dict[str, int]
    """Number of tensors by dtype."""
    bytes: int
    licence: str
    fits_config: bool
    """Whether the tensors, also the adapter's, are those of the configuration; `problems` names the differences."""
    problems: tuple[str, ...]
    sha256: dict[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def count_parameters(config: MedMoEConfig, sizes: Mapping[str, int]) -> ParameterCount:
    """Count total and activated parameters from the number of elements of every tensor by its name on disk."""
    parts = {part: sum(size for name, size in sizes.items() if name.startswith(f"{part}.")) for part in PARTS}
    text = config.text_config
    idle = text.num_experts - text.num_experts_per_tok
    of_layer = [_expert(sizes, layer) for layer in text.moe_layers]
    activated = parts["language_model"] - idle * sum(of_layer)
    total = sum(parts.values())
    return ParameterCount(
        **parts,
        total=total,
        expert=max(of_layer, default=0),
        activated_language_model=activated,
        activated=total - parts["language_model"] + activated,
    )


def inspect_checkpoint(directory: Path, *, digests: bool = True) -> Inspection:
    """Inspect the checkpoint in `directory`. Raises ConfigError or CheckpointError when it is none of this project.

    `digests` reads every file whole for its SHA-256.
    """
    _refuse_upstream(directory)
    config = MedMoEConfig.from_directory(directory)
    weights = WeightFiles.of(directory)
    tensors = weights.tensors()
    sizes = {name: math.prod(tensor.shape) for name, tensor in tensors.items()}
    text, vision = config.text_config, config.vision_config
    sha256 = _digests(directory) if digests else {}
    gates = _read_gates(tensors)
    problems = verify_weights(config, tensors)
    if bad := [name for name, values in gates.items() if not _is_finite(values, dtype=tensors[name].dtype)]:
        problems.append(f"not finite numbers: {listed(bad)}")
    adapter = None
    if (directory / ADAPTER_CONFIG_FILE).exists() or (directory / ADAPTER_WEIGHTS_FILE).exists():
        adapter_config = AdapterConfig.from_directory(directory)
        adapter_tensors = WeightFiles((directory / ADAPTER_WEIGHTS_FILE,)).tensors()
        adapter = _adapter(adapter_config, adapter_tensors)
        problems += verify_adapter(
            adapter_config,
            config,
            adapter_tensors,
            weights_sha256=weights.sha256() if digests else None,
            adapter_sha256=sha256.get(ADAPTER_WEIGHTS_FILE),
        )
    return Inspection(
        name=config.name,
        family=_family(config, adapter),
        backbone=text.model_type,
        layers=text.num_hidden_layers,
        context=text.max_position_embeddings,
        vision_tower=f"{vision.model_type}, {vision.num_hidden_layers} blocks, {vision.image_size} px",
        image_tokens=config.num_image_tokens,
        moe=_experts(config, gates=_compare_gates(gates)) if text.moe_layers else None,
        adapter=adapter,
        parameters=count_parameters(config, sizes),
        tensors=dict(sorted(Counter(tensor.dtype for tensor in tensors.values()).items())),
        bytes=sum(file.stat().st_size for file in _files(directory)),
        licence=stated_licence(directory),
        fits_config=not problems,
        problems=tuple(problems),
        sha256=sha256,
    )


def _family(config: MedMoEConfig, adapter: Adapter | None) -> str:
    if not config.text_config.moe_layers:
        return "med_moe_lora" if adapter else "dense"
    return "med_moe" if config.text_config.shared_expert else "moe_llava"


def _experts(config: MedMoEConfig, *, gates: str) -> Experts:
    text = config.text_config
    return Experts(
        layers=text.moe_layers,
        experts=text.num_experts,
        experts_per_token=text.num_experts_per_tok,
        renormalized=text.renormalize,
        gate_bias=text.gate_bias,
        shared_expert=text.shared_expert,
        residual=text.residual,
        gates=gates,
        domains=config.expert_domains,
    )


def _adapter(config: AdapterConfig, tensors: Tensors) -> Adapter:
    return Adapter(
        parameters=sum(math.prod(tensor.shape) for tensor in tensors.values()),
        target_modules=tuple(config.target_modules),
        experts_per_layer=tuple(layer.n_experts for layer in config.layers),
        ranks_per_layer=tuple(layer.total_rank for layer in config.layers),
        router_scope=config.router_scope,
        anchors=config.anchor_mode,
    )


def _expert(sizes: Mapping[str, int], layer: int) -> int:
    """Return the parameters of one expert of a layer; all of its experts have the same size."""
    prefix = f"language_model.model.layers.{layer}.mlp.experts.0."
    return sum(size for name, size in sizes.items() if name.startswith(prefix))


def _refuse_upstream(directory: Path) -> None:
    try:
        model_type = json.loads(read_bounded(directory / CONFIG_FILE)).get("model_type")
    except (OSError, ValueError, RecursionError, AttributeError, CheckpointError):
        return
    if isinstance(model_type, str) and "llava" in model_type:
        raise ConfigError(
            f"{directory} is an upstream checkpoint ({terminal_safe(repr(model_type))}): "
            "convert it with `medmoe convert`"
        )


def _read_gates(tensors: Mapping[str, StoredTensor]) -> dict[str, bytes]:
    """Read the stored bytes of every gate tensor."""
    return {name: tensors[name].read() for name in filter(is_gate, tensors)}


def _is_finite(values: bytes, *, dtype: str) -> bool:
    """Return whether little-endian `values` of a safetensors dtype hold neither NaN nor an infinity."""
    if dtype == "BF16":  # the upper half of a float32
        return bool(np.isfinite((np.frombuffer(values, "<u2").astype("<u4") << 16).view("<f4")).all())
    numpy_dtype = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}.get(dtype)
    return numpy_dtype is None or bool(np.isfinite(np.frombuffer(values, numpy_dtype)).all())


def _compare_gates(gates: Mapping[str, bytes]) -> str:
    router = RouterFingerprint()
    for name, values in gates.items():
        router.add(name, values)
    return "one for all layers" if router.different == 1 else f"{router.different} different in {router.layers} layers"


def _digests(directory: Path) -> dict[str, str]:
    return {path.name: checkpoint_file_sha256(path) for path in _files(directory)}


def _files(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.is_file())
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {error.strerror}") from error
