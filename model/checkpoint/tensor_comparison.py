"""Compare the tensors of a checkpoint with those that its configuration asks for. Torch-free."""

from collections.abc import Mapping

from medmoe.model.config import CONFIG_FILE, MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.files.terminal_safe import listed

Shape = tuple[int, ...]
_FLOATING = ("F16", "BF16", "F32", "F64")


def misfits(found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> list[str]:
    """Return a sentence each for the missing, unknown and misshapen tensors; none when all fit."""
    misshapen = [
        f"{name} is {found[name]}, expected {wanted[name]}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name] != wanted[name]
    ]
    kinds = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unknown": sorted(found.keys() - wanted.keys()),
        "misshapen": misshapen,
    }
    return [f"{kind}: {listed(names)}" for kind, names in kinds.items() if names]


def not_floating(dtypes: Mapping[str, str]) -> str | None:
    """Say which tensors are no floating point numbers of 16, 32 or 64 bits, by safetensors' names of their dtypes."""
    wrong = sorted(name for name, dtype in dtypes.items() if dtype not in _FLOATING)
    return f"not stored as floating point numbers of 16, 32 or 64 bits: {listed(wrong)}" if wrong else None


def too_few(found: Mapping[str, object], config: MedMoEConfig) -> str | None:
    """Say that fewer tensors are there than the layers and experts of `config`, each of which has one at least.

    Ask before anything is built or listed of a config.json that may be hostile.
    """
    text = config.text_config
    least = text.num_hidden_layers + len(text.moe_layers) * text.num_experts + config.vision_config.num_hidden_layers
    if len(found) >= least:
        return None
    return f"the weights hold {len(found)} tensors; the layers of {CONFIG_FILE} alone need {least}"


def compare_tensors(
    found: Mapping[str, Shape], wanted: Mapping[str, Shape], *, source: str, fits: str = CONFIG_FILE
) -> None:
    """Compare names and shapes of `source` with those that the file `fits` asks for.

    Raises CheckpointError naming every tensor that is missing, unknown or misshapen.
    """
    if problems := misfits(found, wanted):
        raise CheckpointError(f"{source} does not fit {fits}; " + "; ".join(problems))
