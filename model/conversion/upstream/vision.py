"""Read an upstream vision tower: sizes from its tensors, the rest from a known name or the caller.

Upstream loads the tower by the name in mm_image_tower, which in published configs is a path on the author's machine;
the number of heads, the activation and the epsilon stand nowhere else. They are never guessed.
"""

from pathlib import PurePosixPath
from typing import Any, NamedTuple

from medmoe.model.conversion.options import Options
from medmoe.model.conversion.report import Report
from medmoe.model.conversion.upstream.config import MAX_LAYERS, UpstreamConfig
from medmoe.model.conversion.upstream.names import NUMBER, indices
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.terminal_safe import listed


class KnownTower(NamedTuple):
    """Facts of a published tower; its shapes tell only `sizes`: width, blocks, patch, positions."""

    name: str
    model_type: str
    heads: int
    activation: str
    eps: float
    image_size: int
    sizes: tuple[int, int, int, int]


_KNOWN = (
    KnownTower("openai/clip-vit-large-patch14-336", "clip", 16, "quick_gelu", 1e-5, 336, (1024, 24, 14, 577)),
    KnownTower("openai/clip-vit-large-patch14", "clip", 16, "quick_gelu", 1e-5, 224, (1024, 24, 14, 257)),
    KnownTower("google/siglip-so400m-patch14-384", "siglip", 16, "gelu_pytorch_tanh", 1e-6, 384, (1152, 27, 14, 729)),
)
_PROCESSORS: dict[str, dict[str, object]] = {
    "clip": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "background": [122, 116, 104],
    },
    "siglip": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "background": [127, 127, 127]},
}
_ACTIVATIONS = ("gelu", "quick_gelu", "gelu_pytorch_tanh")


def vision_fields(
    shapes: dict[str, tuple[int, ...]],
    config: UpstreamConfig,
    options: Options,
    report: Report,
    *,
    tower_config: UpstreamConfig | None,
) -> dict[str, object]:
    """Return the fields of VisionConfig for tower tensors `shapes`, named without their prefix. Raises ConfigError.

    `tower_config` is config.json's vision part of a tower given apart.
    """
    model_type = "clip" if "embeddings.class_embedding" in shapes else "siglip"
    patches = _shape(shapes, "embeddings.patch_embedding.weight", 4)
    positions = _shape(shapes, "embeddings.position_embedding.weight", 2)[0]
    blocks = _blocks(shapes)
    width, patch = patches[0], patches[3]
    inner = _shape(shapes, "encoder.layers.0.mlp.fc1.weight", 2)[0]
    grid = round((positions - (model_type == "clip")) ** 0.5)
    if grid**2 + (model_type == "clip") != positions:
        raise CheckpointError(f"the vision tower has {positions} positions, which is no square of patches")
    known = _known(config, report)
    if known and (known.model_type, known.sizes) != (model_type, (width, blocks, patch, positions)):
        found = f"{model_type} of {blocks} blocks, width {width}, patch {patch}, {positions} positions"
        raise ConfigError(f"config.json names the tower {known.name}, but its tensors are a {found}")
    if tower_config is not None:
        _compare(tower_config, hidden_size=width, patch_size=patch, intermediate_size=inner)
    if config.size("mm_hidden_size") != width:
        raise ConfigError(f"config.json: mm_hidden_size is {config.size('mm_hidden_size')}, the tower's width {width}")
    # A SigLIP tower may leave a strip of pixels unseen, which no shape tells.
    size = grid * patch if model_type == "clip" else None
    fields = {
        "num_hidden_layers": options.vision_layers,
        "num_attention_heads": options.vision_heads,
        "hidden_act": options.vision_activation,
        "layer_norm_eps": options.vision_eps,
        "image_size": size if options.vision_image_size is None else options.vision_image_size,
    }
    _fill(fields, tower_config=tower_config, known=known)
    if (whole := fields.pop("num_hidden_layers")) != blocks:
        raise CheckpointError(f"the vision tower has {whole} blocks, the tensors hold {blocks}")
    if int(str(fields["image_size"])) // patch != grid:
        raise ConfigError(f"images of {fields['image_size']} pixels do not make the tower's {grid} x {grid} patches")
    return {
        "model_type": model_type,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": _used_blocks(config, blocks),
        "patch_size": patch,
        "drop_first_patch": model_type == "siglip",
        **fields,
    }


def image_processor_fields(model_type: str, config: UpstreamConfig, options: Options) -> dict[str, object]:
    """Return the fields of ImageProcessorConfig. Raises ConfigError for an image_aspect_ratio without an equal here."""
    ratio = config.text("image_aspect_ratio")
    ratio = "square" if ratio is None else ratio
    if options.image_mode is None and ratio not in ("pad", "square"):
        raise ConfigError(f"config.json: image_aspect_ratio {ratio!r} is not supported; choose with --image-mode")
    if options.image_mode is None and ratio == "square" and model_type == "siglip":
        raise ConfigError("upstream squeezes images for SigLIP, which is not supported; choose with --image-mode")
    mode = options.image_mode or ("pad" if ratio == "pad" else "crop")
    return {"mode": mode, **_PROCESSORS[model_type]}


def _known(config: UpstreamConfig, report: Report) -> KnownTower | None:
    """Return the known tower by the last component of mm_image_tower: the rest is a hub's owner or a path on the
    author's machine.
    """
    said = config.text("mm_image_tower") or config.text("mm_vision_tower") or ""
    last = PurePosixPath(said.replace("\\", "/")).name
    for tower in _KNOWN:
        if last == tower.name.split("/")[1]:
            if said != tower.name:
                report.notes.append(f"mm_image_tower is a local path of its author; read as {tower.name}")
            return tower
    return None


def _fill(fields: dict[str, Any], *, tower_config: UpstreamConfig | None, known: KnownTower | None) -> None:
    """Fill a field from the caller's value, then the tower's own config.json, then the known name."""
    sources: list[dict[str, Any]] = []
    if tower_config is not None:
        sources.append(
            {
                "num_hidden_layers": tower_config.integer("num_hidden_layers"),
                "num_attention_heads": tower_config.integer("num_attention_heads"),
                "hidden_act": tower_config.text("hidden_act"),
                "layer_norm_eps": tower_config.number("layer_norm_eps", below=1)
                if "layer_norm_eps" in tower_config
                else None,
                "image_size": tower_config.integer("image_size"),
            }
        )
    if known is not None:
        sources.append(
            {
                "num_hidden_layers": known.sizes[1],
                "num_attention_heads": known.heads,
                "hidden_act": known.activation,
                "layer_norm_eps": known.eps,
                "image_size": known.image_size,
            }
        )
    for source in sources:
        fields.update({name: value for name, value in source.items() if fields[name] is None})
    if absent := [name for name, value in fields.items() if value is None]:
        towers = ", ".join(tower.name for tower in _KNOWN)
        raise ConfigError(
            f"the tower's {', '.join(absent)} cannot be read from its tensors, and mm_image_tower is none of {towers}: "
            "give --vision-tower, or --vision-layers, --vision-heads, --vision-activation, --vision-eps and "
            "--vision-image-size"
        )
    if not 0 < fields["layer_norm_eps"] < 1:
        raise ConfigError(f"the tower's layer_norm_eps {fields['layer_norm_eps']} is not between 0 and 1")
    if fields["hidden_act"] not in _ACTIVATIONS:
        raise ConfigError(f"the tower's activation {fields['hidden_act']!r} is none of {', '.join(_ACTIVATIONS)}")


def _blocks(shapes: dict[str, tuple[int, ...]]) -> int:
    """Return the number of blocks. Raises CheckpointError when one between them is missing."""
    found = indices(shapes, rf"encoder\.layers\.{NUMBER}\.")
    last = min(found[-1], MAX_LAYERS) if found else 0
    if found != list(range(last + 1)):
        known = set(found)
        missing = [str(block) for block in range(last + 1) if block not in known]
        raise CheckpointError(f"the vision tower lacks the blocks {listed(missing) or f'below {found[-1]}'}")
    return last + 1


def _compare(tower_config: UpstreamConfig, **found: int) -> None:
    for field, size in found.items():
        said = tower_config.integer(field)
        if said is not None and said != size:
            raise CheckpointError(f"the tower's own config.json says {field} {said}, its tensors {size}")


def _used_blocks(config: UpstreamConfig, blocks: int) -> int:
    """Return the used blocks: mm_vision_select_layer counts hidden states, so that -2 of 24 blocks uses 23."""
    layer = config.required("mm_vision_select_layer")
    used = layer if layer >= 0 else blocks + 1 + layer
    if not 1 <= used <= blocks:
        raise ConfigError(f"config.json: mm_vision_select_layer {layer} selects nothing of {blocks} blocks")
    feature = config.text("mm_vision_select_feature")
    if feature not in (None, "patch"):
        raise ConfigError(f"config.json: mm_vision_select_feature {feature!r} is not supported; only patch is")
    return used


def _shape(shapes: dict[str, tuple[int, ...]], name: str, dimensions: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) != dimensions or not all(shape):
        found = "missing" if shape is None else f"of shape {shape}"
        raise CheckpointError(f"the vision tower's {name} is {found}")
    return shape
