"""Drop out what attention, FFNs and projector add (StageConfig.dropout), for decoders trained from scratch.

The hooks come and go with a stage: a backbone is a library's, and its checkpoint must not know how it was
trained. Hooks on the modules cover decoders that run attention and FFN one after the other, and Phi, which runs them
side by side; both add what the modules return to the residual stream.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn import functional as F

from medmoe.model.medmoe import MedMoE


@contextmanager
def residual_dropout(model: MedMoE, probability: float) -> Iterator[None]:
    """Apply dropout to what each decoder layer's `self_attn` and `mlp` and the projector return in training.

    In evaluation mode nothing changes, and a probability of 0 adds no hook. The tower sees none: its features are read
    from disk. Raises ValueError for a probability outside [0, 1).
    """
    if not 0 <= probability < 1:
        raise ValueError(f"dropout of {probability}: choose at least 0 and less than 1")

    def drop(module: nn.Module, _: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):  # attention also returns its weights
            return (F.dropout(output[0], probability), *output[1:])
        return F.dropout(output, probability)

    places = [model.projector]
    for layer in model.language_model.model.layers:
        places += [layer.self_attn, layer.mlp]
    hooks = [place.register_forward_hook(drop) for place in places] if probability else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
