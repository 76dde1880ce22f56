"""Compare the tensors of a checkpoint with its config.json and adapter_config.json. Torch-free."""

from collections.abc import Mapping

from medmoe.model.config import CONFIG_FILE, MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.model.files.terminal_safe import listed
from medmoe.model.inspection.tensor_shapes import Shape, tensor_shapes
from medmoe.model.lora import layout
from medmoe.model.lora.adapter_config import AdapterConfig, architecture_sha256

Shapes = Mapping[str, Shape]


def verify_weights(config: MedMoEConfig, shapes: Shapes) -> list[str]:
    """Return one sentence for each kind of misfit between the model's tensors and `config`; empty when they fit."""
    text, vision = config.text_config, config.vision_config
    # A hostile config.json can promise millions of tensors; the file's own count bounds what is listed.
    least = text.num_hidden_layers + len(text.moe_layers) * text.num_experts + vision.num_hidden_layers
    if len(shapes) < least:
        return [f"the weights hold {len(shapes)} tensors; the layers of {CONFIG_FILE} alone need {least}"]
    wanted = tensor_shapes(config)
    return [
        *_sentence("missing", sorted(wanted.keys() - shapes.keys())),
        *_sentence(f"not in {CONFIG_FILE}", sorted(shapes.keys() - wanted.keys())),
        *_sentence(f"of another shape than {CONFIG_FILE} states", _misshapen(shapes, wanted)),
    ]


def verify_adapter(
    adapter: AdapterConfig, config: MedMoEConfig, shapes: Shapes, *, weights_sha256: str | None
) -> list[str]:
    """Return one sentence for each misfit of an adapter with its base and its own tensors; empty when it fits.

    Without `weights_sha256`, the digest of the weights, the base is compared by architecture only.
    """
    found = []
    if adapter.base.config_sha256 != architecture_sha256(config):
        found.append("the adapter was trained on another architecture than config.json's")
    if weights_sha256 is not None and adapter.base.weights_sha256 != weights_sha256:
        found.append("the adapter was trained on other weights than these")
    try:
        wanted = layout.tensor_shapes(adapter, config)
    except ConfigError as error:
        return [*found, str(error)]
    found += _sentence("missing from the adapter", sorted(wanted.keys() - shapes.keys()))
    found += _sentence("not of the adapter's", sorted(shapes.keys() - wanted.keys()))
    return [*found, *_sentence("of another shape than the adapter's", _misshapen(shapes, wanted))]


def _misshapen(found: Shapes, wanted: Shapes) -> list[str]:
    return [
        f"{name} is {found[name]}, expected {wanted[name]}"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name] != found[name]
    ]


def _sentence(what: str, names: list[str]) -> list[str]:
    return [f"{what}: {listed(names)}"] if names else []
