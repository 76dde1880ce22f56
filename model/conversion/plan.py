"""Plan the conversion of every tensor before one is read.

The configuration says which tensors must exist. Every further tensor of upstream needs a reason to be left out.
"""

import math
from collections import Counter
from dataclasses import dataclass

import torch

from medmoe.model.checkpoint.io import expected_tensors
from medmoe.model.checkpoint.tensor_writer import TensorSpec
from medmoe.model.config import MedMoEConfig
from medmoe.model.conversion.report import Report
from medmoe.model.conversion.upstream.names import RESIDUAL_COPY, TOWER_PREFIX, reason_to_drop, upstream_name
from medmoe.model.conversion.weights.tensor_source import TensorSource
from medmoe.model.conversion.weights.weight_file import TensorInfo
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.router_fingerprint import is_gate
from medmoe.model.files.terminal_safe import listed

_APART = "vision tower: "
_VOCABULARY = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")


Key = tuple[int, str]
"""A source tensor: the identity of its source, and its name there. Two sources may share a name."""


@dataclass(frozen=True)
class Step:
    """One tensor to write: `source_name` of `source`, its first rows, cast to the dtype of `spec`."""

    spec: TensorSpec
    source: TensorSource
    source_name: str

    @property
    def key(self) -> Key:
        return id(self.source), self.source_name

    @property
    def is_gate(self) -> bool:
        return is_gate(self.spec.name)


@dataclass(frozen=True)
class Tower:
    """Locate the vision tower's tensors, and name them as they are called there."""

    source: TensorSource
    prefix: str
    apart: bool = False
    """Whether it has files of its own; the report then names its tensors apart from the checkpoint's."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the tensors by name without the prefix."""
        shapes = self.source.shapes.items()
        return {name.removeprefix(self.prefix): shape for name, shape in shapes if name.startswith(self.prefix)}


def most_common_dtype(source: TensorSource) -> str:
    """Return the name of the dtype that most of the weights have. Raises ConfigError when it is none that we store."""
    counts: Counter[torch.dtype] = Counter()
    for info in source.tensors.values():
        if info.dtype is not None:
            counts[info.dtype] += math.prod(info.shape)
    if not counts:
        raise CheckpointError("no tensor of the checkpoint holds floating point numbers")
    name = str(counts.most_common(1)[0][0]).removeprefix("torch.")
    if name == "float64":
        raise ConfigError("the weights are float64; choose with --dtype what they become")
    return name


def plan_steps(config: MedMoEConfig, source: TensorSource, tower: Tower, report: Report) -> list[Step]:
    """Return the steps in the order in which they are written: wider dtypes first, so that every tensor is aligned,
    then as they lie.

    Raises CheckpointError naming every tensor that is missing, misshapen, or not a kind of number we store.
    """
    steps, missing, misshapen, kinds = [], [], [], []
    for name, wanted in expected_tensors(config).items():
        in_tower = name.startswith("vision_tower.")
        where = tower.source if in_tower else source
        theirs = upstream_name(name, tower_prefix=tower.prefix)
        info = where.tensors.get(theirs)
        if info is None:
            missing.append(theirs)
        elif not _fits(name, info.shape, tuple(wanted.shape)):
            misshapen.append(f"{theirs} is {info.shape}, expected {tuple(wanted.shape)}")
        elif info.dtype is None:
            kinds.append(theirs)
        else:
            if info.shape != tuple(wanted.shape):
                report.cut[theirs] = f"{info.shape[0] - wanted.shape[0]} rows beyond the tokenizer"
            steps.append(Step(TensorSpec(name, _dtype(name, info, config), tuple(wanted.shape)), where, theirs))
    problems = {"missing": sorted(missing), "misshapen": misshapen, "not floating point": kinds}
    if any(problems.values()):
        text = "; ".join(f"{what}: {listed(names)}" for what, names in problems.items() if names)
        raise CheckpointError(f"the tensors do not fit config.json; {text}")
    for step in steps:
        apart = tower.apart and step.source is tower.source
        report.mapped[_APART + step.source_name if apart else step.source_name] = step.spec.name
    place = {
        (id(where), name): index
        for index, (where, name) in enumerate(
            (where, name) for where in (source, tower.source) for name in where.tensors
        )
    }
    return sorted(steps, key=lambda step: (-step.spec.dtype.itemsize, place[step.key]))


def account_for_the_rest(
    config: MedMoEConfig, source: TensorSource, tower: Tower, steps: list[Step], report: Report, *, video: bool
) -> dict[str, str]:
    """Report why each other tensor is not converted; return copies, by name, with the tensor that each must equal.

    Raises CheckpointError naming every tensor without a reason.
    """
    copies: dict[str, str] = {}
    unknown = []
    text = config.text_config
    used = {step.key for step in steps}
    mapped = {name for where, name in used if where == id(source)}
    if tower.apart:
        _account_for_the_tower(config, tower, {name for where, name in used if where != id(source)}, report)
    for name in source.tensors.keys() - mapped:
        residual = RESIDUAL_COPY.fullmatch(name)
        twin = f"{residual[1]}.meta_moe.{residual[2]}" if residual else None
        if text.tie_word_embeddings and name == "lm_head.weight":
            copies[name] = "model.embed_tokens.weight"
        elif twin in mapped and text.residual:
            copies[name] = str(twin)
        elif reason := reason_to_drop(
            name,
            tower_prefix=TOWER_PREFIX,
            tower_blocks=config.vision_config.num_hidden_layers,
            phi=text.model_type == "phi",
            video=video,
        ):
            report.dropped[name] = reason
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(f"tensors that this build does not know: {listed(sorted(unknown))}")
    report.dropped = dict(sorted(report.dropped.items()))
    return dict(sorted(copies.items()))


def _account_for_the_tower(config: MedMoEConfig, tower: Tower, used: set[str], report: Report) -> None:
    """Account for the files of a separate tower: they may hold a whole CLIP, of which only the tower is used."""
    for name in tower.source.tensors.keys() - used:
        reason = reason_to_drop(
            name,
            tower_prefix=tower.prefix,
            tower_blocks=config.vision_config.num_hidden_layers,
            phi=False,
            video=True,
        )
        if reason is None and name.startswith(tower.prefix):
            raise CheckpointError(f"the vision tower holds a tensor that this build does not know: {listed([name])}")
        report.dropped[_APART + name] = reason or "not part of the vision tower"


def _fits(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Return whether a shape fits; surplus rows of the vocabulary do, and are cut, as in `resize_token_embeddings`."""
    if name in _VOCABULARY:
        return len(shape) == 2 and shape[0] >= wanted[0] and shape[1] == wanted[1]
    return shape == wanted


def _dtype(name: str, info: TensorInfo, config: MedMoEConfig) -> torch.dtype:
    if is_gate(name) and info.dtype is torch.float32:
        return torch.float32
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype
