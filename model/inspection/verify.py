"""Compare the tensors of a checkpoint with its config.json and adapter_config.json. Torch-free."""

from collections.abc import Mapping

from medmoe.model.checkpoint.tensor_comparison import Shape, misfits, too_few
from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.model.inspection.tensor_shapes import tensor_shapes
from medmoe.model.lora import layout
from medmoe.model.lora.adapter_config import AdapterConfig, architecture_sha256

Shapes = Mapping[str, Shape]


def verify_weights(config: MedMoEConfig, shapes: Shapes) -> list[str]:
    """Return a sentence for each kind of misfit between the model's tensors and `config`; none when they fit."""
    if problem := too_few(shapes, config):
        return [problem]
    return misfits(shapes, tensor_shapes(config))


def verify_adapter(
    adapter: AdapterConfig, config: MedMoEConfig, shapes: Shapes, *, weights_sha256: str | None
) -> list[str]:
    """Return a sentence for each misfit of an adapter with its base and its own tensors; none when it fits.

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
    return [*found, *(f"the adapter's tensors: {misfit}" for misfit in misfits(shapes, wanted))]
