"""Compare the tensors of a checkpoint with its config.json and adapter_config.json. Torch-free."""

from collections.abc import Mapping

from medmoe.model.checkpoint.tensor_comparison import misfits, not_floating, too_few
from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.model.files.terminal_safe import listed
from medmoe.model.files.weight_files import StoredTensor
from medmoe.model.inspection.tensor_shapes import tensor_shapes
from medmoe.model.lora import layout
from medmoe.model.lora.adapter_config import AdapterConfig, architecture_sha256

Tensors = Mapping[str, StoredTensor]
_DTYPE_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def verify_weights(config: MedMoEConfig, tensors: Tensors) -> list[str]:
    """Return a sentence for each kind of misfit between the model's tensors and `config`; none when they fit."""
    if problem := too_few(tensors, config):
        return [problem]
    wrong_kind = not_floating({name: tensor.dtype for name, tensor in tensors.items()})
    found = misfits({name: tensor.shape for name, tensor in tensors.items()}, tensor_shapes(config))
    return found + ([wrong_kind] if wrong_kind else [])


def verify_adapter(
    adapter: AdapterConfig,
    config: MedMoEConfig,
    tensors: Tensors,
    *,
    weights_sha256: str | None,
    adapter_sha256: str | None,
) -> list[str]:
    """Return a sentence for each misfit of an adapter with its base and its own tensors; none when it fits.

    `weights_sha256` and `adapter_sha256` are the digests of the weights and of the adapter's tensors; without them the
    base is compared by architecture only, and the tensors by name, shape and dtype.
    """
    found = []
    if adapter.base.config_sha256 != architecture_sha256(config):
        found.append("the adapter was trained on another architecture than config.json's")
    if weights_sha256 is not None and adapter.base.weights_sha256 != weights_sha256:
        found.append("the adapter was trained on other weights than these")
    if adapter_sha256 is not None and adapter.adapter_sha256 not in (None, adapter_sha256):
        found.append("the adapter's tensors are not those that adapter_config.json was written for")
    try:
        wanted = layout.tensor_shapes(adapter, config)
    except ConfigError as error:
        return [*found, str(error)]
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    found += [f"the adapter's tensors: {misfit}" for misfit in misfits(shapes, wanted)]
    dtypes = {name: _DTYPE_NAMES[layout.tensor_dtype(name, adapter)] for name in tensors}
    if wrong := sorted(name for name, tensor in tensors.items() if tensor.dtype != dtypes[name]):
        found.append(f"the adapter's tensors: not stored as adapter_config.json says: {listed(wrong)}")
    return found
