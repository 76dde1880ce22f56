"""Verify tensors that must equal others: tied copies inside a checkpoint, and its duplicate as .bin."""

import torch

from medmoe.model.conversion.upstream.names import RESIDUAL_COPY
from medmoe.model.conversion.weights.source_files import SourceWeights
from medmoe.model.conversion.weights.tensor_source import TensorSource
from medmoe.model.errors import CheckpointError
from medmoe.model.files.terminal_safe import listed


def check_copies(tensors: TensorSource, copies: dict[str, str]) -> None:
    """Raise CheckpointError naming every tensor that should be tied to another and differs from it."""
    if different := [name for name, kept in copies.items() if not torch.equal(tensors.read(name), tensors.read(kept))]:
        raise CheckpointError(
            f"upstream ties these to {copies[different[0]]} and the like, but their values differ: {listed(different)}"
        )


def check_duplicate(tensors: TensorSource, files: SourceWeights | None) -> None:
    """Compare the safetensors with the .bin beside them, tensor by tensor. Raises CheckpointError for a difference.

    safetensors leave out a second name of tied weights, so that those are held against the first.
    """
    if files is None:
        raise CheckpointError("--verify compares safetensors with a .bin beside them, and there are not both")
    other = TensorSource(files)
    different = sorted(tensors.tensors.keys() - other.tensors.keys())
    for name in other.tensors:
        if (kept := _kept(name, tensors)) is None or not torch.equal(other.read(name), tensors.read(kept)):
            different.append(name)
    if different:
        raise CheckpointError(f"the safetensors and the .bin beside them differ in: {listed(different)}")


def _kept(name: str, tensors: TensorSource) -> str | None:
    copy = RESIDUAL_COPY.fullmatch(name)
    names = (
        name,
        f"{copy[1]}.meta_moe.{copy[2]}" if copy else "",
        "model.embed_tokens.weight" if "lm_head" in name else "",
    )
    return next((found for found in names if found in tensors.tensors), None)
