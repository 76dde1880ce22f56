"""Determine family, MoE layers, experts and residual branch of an upstream checkpoint.

The folder's name never counts, and tensors that contradict config.json are an error. Both top-1 and top-2
checkpoints, with and without residual, were trained under the same names.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from medmoe.model.conversion.report import Report
from medmoe.model.conversion.upstream.config import MAX_LAYERS, UpstreamConfig
from medmoe.model.conversion.upstream.names import NUMBER, RESIDUAL_COPY, indices
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.terminal_safe import listed

Family = Literal["med_moe", "moe_llava", "dense"]
_LAYER = rf"model\.layers\.{NUMBER}\."
_GATE = "model.layers.{}.mlp.deepspeed_moe.gate.wg.weight"
_MODES = {
    "sparse": lambda layers: range(0, layers, 2),
    "dense": lambda layers: range(layers),
    "first_half": lambda layers: range(layers // 2),
    "second_half": lambda layers: range(layers // 2, layers),
}
_CUSTOM = "custom"
_SHOWN = 64


@dataclass(frozen=True)
class MoELayout:
    """Describe the FFNs of a checkpoint. The defaults are a dense model."""

    family: Family = "dense"
    layers: tuple[int, ...] = ()
    experts: int = 4
    top_k: int = 1
    gate_bias: bool = True
    residual: bool = False

    def text_fields(self) -> dict[str, object]:
        """Return the fields of TextConfig. Top-2 weights are shares of the two, top-1's is the raw probability
        (DeepSpeed).
        """
        return {
            "moe_layers": list(self.layers),
            "num_experts": self.experts,
            "num_experts_per_tok": self.top_k,
            "gate_bias": self.gate_bias,
            "renormalize": self.top_k == 2,
            "shared_expert": self.family != "moe_llava",
            "residual": self.residual,
        }


def moe_layout(
    shapes: dict[str, tuple[int, ...]], config: UpstreamConfig, report: Report, *, top_k: int | None
) -> MoELayout:
    """Return the layout. `top_k` is the caller's and overrides config.json's.

    Raises ConfigError when config.json and the tensors' names disagree, or when neither says what must be known.
    """
    moe = config.section("moe")
    enabled = moe.flag("moe_enable")
    found = tuple(indices(shapes, _LAYER + r"mlp\.deepspeed_moe\."))
    if not found:
        stray = [name for name in shapes if ".meta_moe." in name or ".mlp.coefficient." in name]
        if stray or enabled:
            raise ConfigError("config.json or stray tensors speak of experts, but no deepspeed_moe tensor is there")
        return MoELayout()
    if "moe_enable" in moe and not enabled:
        raise ConfigError(f"config.json says moe_enable false, but the tensors hold experts in layers {_shown(found)}")
    _check_layers(found, moe, report, layers=config.size("num_hidden_layers", most=MAX_LAYERS))
    meta = any(".mlp.meta_moe." in name for name in shapes)
    return MoELayout(
        family="med_moe" if meta else "moe_llava",
        layers=found,
        experts=_experts(shapes, moe, layers=found),
        top_k=_top_k(moe, asked=top_k),
        gate_bias=any(name.endswith(".gate.wg.bias") for name in shapes),
        residual=_residual(shapes, moe, meta=meta),
    )


def _check_layers(found: tuple[int, ...], moe: UpstreamConfig, report: Report, *, layers: int) -> None:
    said = moe.integers("moe_layers_idx")
    mode = moe.text("moe_mode")
    if mode is not None and mode not in (*_MODES, _CUSTOM):
        raise ConfigError(f"{moe.name}: moe_mode {mode!r} is none of {', '.join((*_MODES, _CUSTOM))}")
    by_mode = list(_MODES[mode](layers)) if mode is not None and mode != _CUSTOM else None
    if said is None and mode == _CUSTOM:
        raise ConfigError(f"{moe.name}: moe_mode {mode!r} without moe_layers_idx says no layers")
    if (named := by_mode if said is None else said) is not None and sorted(named) != list(found):
        raise ConfigError(f"config.json puts experts into layers {_shown(named)}, the tensors into {_shown(found)}")
    if by_mode is not None and by_mode != list(found):
        # Given layers by number, upstream's trainer leaves the mode at whatever its default was.
        report.notes.append(f"moe_mode {mode!r} is not what moe_layers_idx and the tensors say, which go before it")


def _shown(layers: Iterable[int]) -> str:
    """Return the MoE layers, ascending: every layer there can be, but no more."""
    ascending = sorted(layers)
    return str(ascending) if len(ascending) <= _SHOWN else f"{str(ascending[:_SHOWN])[:-1]}, …]"


def _experts(shapes: dict[str, tuple[int, ...]], moe: UpstreamConfig, *, layers: tuple[int, ...]) -> int:
    counts = set()
    for layer in layers:
        gate = shapes.get(_GATE.format(layer))
        if gate is None:
            raise CheckpointError(f"{_GATE.format(layer)} is missing")
        pattern = rf"model\.layers\.{layer}\.mlp\.deepspeed_moe\.experts\.deepspeed_experts\.{NUMBER}\."
        experts = indices(shapes, pattern)
        # Lengths first: a gate without elements may claim any number of rows.
        if len(gate) != 2 or gate[0] != len(experts) or experts != list(range(len(experts))):
            raise CheckpointError(f"layer {layer}: its gate has the shape {gate}, its experts are {_shown(experts)}")
        counts.add(len(experts))
    said = moe.integers("num_experts")
    if len(counts) > 1:
        raise ConfigError(f"layers have different numbers of experts ({sorted(counts)}), which is not supported")
    if said is not None and set(said) != counts:
        raise ConfigError(f"config.json says {_shown(set(said))} experts a layer, the tensors hold {min(counts)}")
    return min(counts)


def _top_k(moe: UpstreamConfig, *, asked: int | None) -> int:
    top_k = asked if asked is not None else moe.integer("top_k_experts")
    if top_k is None:
        raise ConfigError(
            "config.json does not say moe.top_k_experts, and no tensor can: both 1 and 2 were published; use --top-k"
        )
    if top_k not in (1, 2):
        raise ConfigError(f"top_k_experts is {top_k}; upstream's gating (DeepSpeed 0.9.5) knows only 1 and 2")
    return top_k


def _residual(shapes: dict[str, tuple[int, ...]], moe: UpstreamConfig, *, meta: bool) -> bool:
    found = any(".mlp.coefficient." in name for name in shapes)
    if "use_residual" in moe and moe.flag("use_residual") != found:
        raise ConfigError(
            f"config.json says use_residual {moe.flag('use_residual')}, but mlp.coefficient tensors are "
            f"{'there' if found else 'missing'}"
        )
    copies = [name for name in shapes if RESIDUAL_COPY.fullmatch(name)]
    if copies and not found:
        raise CheckpointError(f"a residual branch without its coefficient: {listed(copies)}")
    if found and not meta:
        raise ConfigError(
            "residual mixing without a meta expert has a branch of its own, which this build does not have "
            "(no published checkpoint uses it)"
        )
    return found
